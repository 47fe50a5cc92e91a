"""Requests with values that JSON takes and most formats do not: they are recorded whole, and stay trainable."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from stub_answers import text

from agentlightning.records import Policy, Span, decode, encode

BIG = 2**70


def tool(**parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object", **parameters}}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"deeper": value}
    return value


@pytest.mark.parametrize(
    ("tools", "recorded"),
    [
        ([tool(maximum=BIG)], [tool(maximum=BIG)]),
        ([tool(properties={"x": {"enum": [-BIG, BIG]}})], [tool(properties={"x": {"enum": [-BIG, BIG]}})]),
        ([tool(default=nested(300))], None),
        ([tool(examples={1: "a", None: "b"})], None),
    ],
    ids=["integer", "integers", "depth", "keys"],
)
def test_a_tool_schema_of_odd_values_is_recorded(rollout, stub, client, tools: Any, recorded: Any) -> None:
    stub.reply(text("Hello."))
    policy = Policy(name="p", model="m", base_url=stub.base_url)
    with rollout(policy):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], tools=tools)
    span = decode(encode(rollout.span), Span)
    assert span.failure is None
    assert span.generation.policy == "p"
    assert span.generation.response == {"role": "assistant", "content": "Hello."}
    assert span.generation.tools
    if recorded is not None:
        assert span.generation.tools == recorded


@pytest.mark.parametrize(
    "content",
    [f"{BIG}", [{"type": "text", "text": "a", "number": BIG}], [{"type": "text", "text": "a", "not": float("inf")}]],
)
def test_a_message_of_odd_values_is_recorded(rollout, stub, client, content: Any) -> None:
    stub.reply(text("Hello."))
    messages = [{"role": "user", "content": content}]
    with rollout(), suppress(ValueError):  # the client's own: JSON has no infinity
        client.chat.completions.create(model="m", messages=messages)
    said = decode(encode(rollout.span), Span).generation
    assert said.messages == messages


@pytest.mark.parametrize("arguments", ['{"x": 1180591620717411303424}', '{"x": "\\ud800"}', '{"x": NaN}', "{" * 3000])
def test_tool_arguments_are_kept_as_the_text_that_they_are(rollout, stub, client, arguments: str) -> None:
    stub.reply(text("Hello."))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "1"}]
    with rollout():
        client.chat.completions.create(model="m", messages=messages)
    said = decode(encode(rollout.span), Span).generation
    assert said.messages[0]["tool_calls"][0]["function"]["arguments"] == arguments
