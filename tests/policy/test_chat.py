"""Text → messages: tool calls, and what a stream may show before the text is complete."""

from __future__ import annotations

import json

import pytest

from agentlightning_policy.engine.chat import Chat, assemble, may_become_call, template_shows
from agentlightning_policy.engine.stream import Unfolding
from agentlightning_policy.model import PolicyModel

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "search")]
ADD = '{"name": "add", "arguments": {"a": {"deep": "}"}}}'


def calls(text: str) -> list[tuple[str, object]]:
    message = assemble(text, TOOLS)
    return [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or []]


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{ADD}</tool_call>",
        f"<tool_call>\n{ADD}",
        ADD,
        f"[{ADD}]",
        f"```json\n{ADD}\n```",
        ADD.replace("arguments", "parameters"),
    ],
)
def test_a_call_is_read(text: str) -> None:
    assert calls(text) == [("add", {"a": {"deep": "}"}})]
    assert assemble(text, TOOLS).content is None


def test_text_around_calls_is_kept_and_calls_keep_their_order() -> None:
    text = f'Let me see. <tool_call>{ADD}</tool_call>\n<tool_call>{{"name": "search"}}</tool_call>'
    assert [name for name, _ in calls(text)] == ["add", "search"]
    assert assemble(text, TOOLS).content == "Let me see."


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{broken}</tool_call>",
        '<tool_call>{"name": "add", "arguments": "text"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '{"name": "no such tool", "arguments": {}}',
        '{"answer": 71}',
        f"{ADD} and more",
        "71",
        "",
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert calls(text) == []
    assert assemble(text, TOOLS).content == text


def test_an_unknown_tool_called_on_purpose_is_for_the_agent_to_refuse() -> None:
    assert calls('<tool_call>{"name": "fly", "arguments": {}}</tool_call>') == [("fly", {})]


def test_without_tools_nothing_is_read() -> None:
    assert assemble(ADD, None).content == ADD


@pytest.mark.parametrize(
    ("text", "shown"),
    [("It is", "It is"), ("It is <tool", "It is"), ("It is <b", "It is <b"), ('{"na', ""), ("  ", ""), ("a\n", "a")],
)
def test_a_stream_holds_back_what_may_become_a_call(text: str, shown: str) -> None:
    assert text[: may_become_call(text)] == shown


def test_a_stream_shows_no_half_characters_and_no_part_of_a_stop_string() -> None:
    data = "né STOP never".encode()
    unfolding = Unfolding(lambda ids: bytes(ids).decode(errors="replace"), ["STOP"], tools=False)
    shown = [unfolding.more(list(data[:size])) for size in range(1, len(data) + 1)]
    assert "".join(shown) == "né "
    assert shown[:3] == ["n", "", "é"]


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
