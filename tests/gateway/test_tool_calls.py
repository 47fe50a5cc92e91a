"""Text → messages: tool calls, and what a stream may show before the text is complete."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_gateway.protocol import Message
from agentlightning_gateway.stream import IncrementalDetokenizer
from agentlightning_gateway.tool_calls import assemble, may_become_call

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("add", "search")]
ADD = '{"name": "add", "arguments": {"a": {"deep": "}"}}}'


def calls(text: str, thought: str | None = None) -> list[tuple[str, object]]:
    message = assemble(text, TOOLS, thought=thought)
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
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "add", "arguments": null}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": -Infinity}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": 1e999}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": {"a": ' + "9" * 5000 + "}}</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": ' + "[" * 3000 + "]" * 3000 + "}}</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": ' + "[" * 200 + "]" * 200 + "}}</tool_call>",
        '<tool_call>{"name": "add", "arguments": {"a": "\x00"}}</tool_call>',
        '<tool_call>{"name": "add", "argum',
        "<tool_call>" * 500,
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


def test_half_a_surrogate_pair_is_no_character() -> None:
    text = r'<tool_call>{"name": "a\ud83d", "arguments": {"\udc00": ["\ud83d", "\ud83d\ude00"]}}</tool_call>'
    message = assemble(text, TOOLS)
    assert msgspec.json.decode(msgspec.json.encode(message), type=Message) == message
    assert calls(text) == [("a\ufffd", {"\ufffd": ["\ufffd", "😀"]})]


def test_of_a_key_written_twice_the_last_counts() -> None:
    assert calls('<tool_call>{"name": "add", "arguments": {"a": 1, "a": 2}}</tool_call>') == [("add", {"a": 2})]


def test_a_number_beyond_64_bits_is_called_with() -> None:
    assert calls(f'<tool_call>{{"name": "add", "arguments": {{"a": {2**70}}}}}</tool_call>') == [("add", {"a": 2**70})]


def test_a_call_within_a_call_s_mark_is_read() -> None:
    assert calls(f"<tool_call><tool_call>{ADD}</tool_call></tool_call>") == [("add", {"a": {"deep": "}"}})]


CALL = f"<tool_call>{ADD}</tool_call>"


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        (f"<think>I could {CALL}</think>71", None),
        (f"<think>I could {CALL}", None),
        (f"<think>{ADD}", None),
        (f"<think>{ADD}</think>", None),
        (f"[THINK]{CALL}[/THINK]71", None),
        (f"<seed:think>{CALL}</seed:think>71", None),
        (f"I could {CALL}", "<think>"),
        (f"I could {CALL}</think>71", "<think>"),
        (ADD, "<think>"),
    ],
)
def test_a_call_in_a_thought_is_part_of_the_thought(text: str, thought: str | None) -> None:
    assert calls(text, thought) == []
    assert assemble(text, TOOLS, thought=thought).content == text


@pytest.mark.parametrize(
    ("text", "thought", "content"),
    [
        (f"<think>one {CALL}</think>\n{CALL}", None, f"<think>one {CALL}</think>"),
        (f"<think>a</think>{CALL}<think>{CALL}</think>", None, f"<think>a</think><think>{CALL}</think>"),
        (f"Let me see. <think>{CALL}</think> {CALL}", None, f"Let me see. <think>{CALL}</think>"),
        (f"<thought>{CALL}</thought>{CALL}", None, f"<thought>{CALL}</thought>"),
        (f"<think>one</think>\n{ADD}", None, "<think>one</think>"),
        (f"I could {CALL}</think>{CALL}", "<think>", f"I could {CALL}</think>"),
        (f"I could {CALL}</think>{ADD}", "<think>", f"I could {CALL}</think>"),
    ],
)
def test_a_call_after_a_thought_is_read_and_the_thought_kept(text: str, thought: str | None, content: str) -> None:
    assert calls(text, thought) == [("add", {"a": {"deep": "}"}})]
    assert assemble(text, TOOLS, thought=thought).content == content


def test_a_thought_that_is_an_argument_is_none() -> None:
    assert calls('<tool_call>{"name": "add", "arguments": {"a": "<think>"}}</tool_call>') == [("add", {"a": "<think>"})]


@given(
    parts=st.lists(
        st.sampled_from(
            [CALL, ADD, "<think>", "</think>", "<tool_call>", "</tool_call>", "text", " ", "\n", "[", "<t"]
        ),
        max_size=8,
    ),
    thought=st.sampled_from([None, "<think>"]),
    parallel=st.booleans(),
)
def test_a_stream_never_shows_what_the_whole_message_does_not(
    parts: list[str], thought: str | None, parallel: bool
) -> None:
    text = "".join(parts)
    whole = assemble(text, TOOLS, thought=thought, parallel=parallel).text
    for size in range(len(text) + 1):
        assert whole.startswith(text[: may_become_call(text[:size], thought)])


def test_without_parallel_calls_the_first_counts() -> None:
    message = assemble(f"{CALL}{CALL}", TOOLS, parallel=False)
    assert len(message.tool_calls or []) == 1
    assert message.content is None


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
    detokenizer = IncrementalDetokenizer(lambda ids: bytes(ids).decode(errors="replace"), ["STOP"])
    shown = [detokenizer.push(list(data[:size])) for size in range(1, len(data) + 1)]
    assert "".join(shown) == "né "
    assert shown[:3] == ["n", "", "é"]
