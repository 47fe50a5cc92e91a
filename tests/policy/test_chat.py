"""Chat templates: what they show, which variables they take, and the one that comes with the distribution."""

from __future__ import annotations

import pytest

from agentlightning_policy.engine.chat import Chat, template_shows
from agentlightning_policy.model import PolicyModel


@pytest.mark.parametrize(
    ("template", "shows"),
    [
        (None, (True, True)),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", (True, False)),
        ("{{ tools }}", (False, True)),
        ("{% if tools %}You have tools.{% endif %}{{ messages[0].content }}", (True, False)),
        ("Say something.", (False, False)),
    ],
)
def test_a_template_is_asked_what_it_shows(policy: PolicyModel, template: str | None, shows: tuple[bool, bool]) -> None:
    if template is not None:
        policy.tokenizer.chat_template = template
    assert template_shows(Chat(policy.tokenizer, ())) == shows
