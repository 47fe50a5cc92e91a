"""Whatever a model, a tool or an agent left in the spans, the signals are looked for and nothing raises."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from intermediate.spans import TASK, Recording, a_rollout

from agentlightning import semconv
from agentlightning.records import Generation, Span
from agentlightning_intermediate.reward import Intermediate, IntermediateConfig
from agentlightning_intermediate.signals import SIGNALS

circle: list[Any] = []
circle.append(circle)
deep: Any = []
for _ in range(50_000):
    deep = [deep]

HOSTILE: list[Any] = [
    None,
    7,
    float("nan"),
    10**5000,
    b"bytes",
    "",
    "x" * 1_000_000,
    " " * 300_000,
    "```json" + " " * 300_000,
    "<think>" * 100_000,
    "[" * 100_000,
    '{"a":' * 50_000,
    "\ud800",
    "SELECT " + "(" * 10_000,
    {},
    {1: "a", "b": 2},
    {"function": None, "id": 3},
    {"function": {"name": None, "arguments": circle}},
    {"function": {"name": ["x"], "arguments": '{"a": 1'}},
    {"id": [1], "custom": {"name": {}, "input": object()}},
    [None, 3, "x", []],
    [{"text": None}, {"text": 3}, {"type": "image"}],
    circle,
    deep,
    object(),
]

READS_ALL = {
    "signals": {name: -0.1 for name in SIGNALS if name != "sql_invalid" or find_spec("sqlglot") is not None},
    "shaping": "bonus",
    "sql_tools": ["*"],
    "sql_agents": ["*"],
    "retrieval_tools": ["*"],
    "json_agents": ["*"],
}


def look(spans: list[Span], output: Any = None) -> None:
    given = Intermediate(msgspec.convert(READS_ALL, IntermediateConfig))(a_rollout(output=output), TASK, spans)
    assert all(isinstance(one.reason, str) and len(one.reason) < 2_000 for one in given)


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_stands_where_there_should_be_something_else_raises_nothing(value: Any) -> None:
    run = Recording()
    run.answer(value)
    run.answer("", *[value, {"id": value, "function": {"name": value, "arguments": value}}])
    run.add("llm", "chat", generation=Generation(response={"tool_calls": value, "content": value}))
    run.add("llm", "chat", generation=Generation(response={}))
    run.tool("a", arguments=value, result=value)
    named = {semconv.TOOL_NAME: value, semconv.TOOL_CALL_ID: value, semconv.AGENT_NAME: value}
    for kind in ("tool", "retrieval", "handoff"):
        run.add(kind, "a", attributes={**named, semconv.RETRIEVAL_DOCUMENTS: value, semconv.RETRIEVAL_QUERY: value})
    run.answer("The end of a long story, as it was told.", attributes={"gen_ai.output.type": value})

    look(run.spans, value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["function", "text", "id"]), inner),
        max_leaves=8,
    )
)
def test_whatever_json_a_model_writes_raises_nothing(value: Any) -> None:
    run = Recording()
    run.answer(value, value, {"id": "c", "function": value})
    run.tool("a", id="c", arguments=value, result=value)
    run.retrieval(value)
    run.answer(value)

    look(run.spans, value)


def test_spans_above_each_other_in_a_circle_raise_nothing() -> None:
    run = Recording()
    run.answer("x")
    run.retrieval([], id="one", parent_id="two")
    run.retrieval([], id="two", parent_id="one")
    run.tool("search", result="", id=None, parent_id="nowhere")

    look(run.spans)
