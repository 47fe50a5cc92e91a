"""What a run that trains weights refuses before its first rollout."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentlightning.errors import PolicyError
from agentlightning_policy.backend import TorchBackend
from agentlightning_policy.config import ModelConfig, TorchConfig

TEMPLATES = {
    "none of the messages": ("<|im_start|>user\nHello.<|im_end|>\n", "shows the model no messages"),
    "only roles": ("{% for message in messages %}<|{{ message.role }}|>{% endfor %}", "shows the model no messages"),
    "refusals": ("{{ raise_exception('no chat') }}", "takes no chat"),
}


@pytest.mark.parametrize(("template", "message"), TEMPLATES.values(), ids=TEMPLATES.keys())
async def test_a_template_that_shows_no_messages_is_refused(
    tiny_model: Path, tmp_path: Path, template: str, message: str
) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(template, encoding="utf-8")
    config = TorchConfig(model=ModelConfig(path=str(tiny_model), device="cpu", chat_template=str(file)))
    backend = TorchBackend(config, name="policy", seed=0, max_updates=1, phase=lambda name, **_: None)
    with pytest.raises(PolicyError, match=message) as refused:
        await backend.start()
    await backend.aclose()
    assert "give another as model.chat_template" in str(refused.value)
