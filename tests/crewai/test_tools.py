"""Tools: arguments, results, call ids and failures, called natively and by the text of the model's answer."""

from __future__ import annotations

from typing import Any

import crewai
import pytest
from crewai.tools import tool
from stub_answers import Answer, Call, Choice, text, tool_call

from agentlightning import semconv

TOLD_OF_FAILURES = pytest.mark.skipif(
    tuple(map(int, crewai.__version__.split(".")[:2])) < (1, 15), reason="events tell of failures that raise nothing"
)


@tool("add")
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    if a < 0:
        raise ValueError("only positive numbers")
    return a + b


def calls(*arguments: str) -> Answer:
    """The model calls ``add``, once for each."""
    return Answer([Choice(None, [Call("add", text, f"call_{place}") for place, text in enumerate(arguments)])])


async def test_equal_calls_at_once_are_a_span_each_with_an_id_each(adapter, rollout, stub, made):
    stub.reply(calls('{"a": 1, "b": 2}', '{"a": 1, "b": 2}', '{"a": -1, "b": 2}'), text("3"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add]))), "?")
    tools = {tool.attributes[semconv.TOOL_CALL_ID]: tool for tool in recorded.all("tool")}
    assert sorted(tools) == ["call_0", "call_1", "call_2"]
    assert [tools[f"call_{place}"].attributes.get(semconv.TOOL_CALL_RESULT) for place in range(3)] == ["3", "3", None]
    assert tools["call_2"].failure.exception == "builtins.ValueError"
    assert {tool.parent_id for tool in tools.values()} == {recorded.only("agent", "solver").id}


async def test_ids_are_those_of_the_answer_that_is_carried_out(adapter, rollout, stub, made):
    first, second = (tool_call("add", id=id, a=1, b=2) for id in ("call_first", "call_second"))
    stub.reply(first, second, text("3"))
    uncached = made.agent("solver", tools=[add], cache=False)
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(uncached), cache=False), "?")
    assert [tool.attributes[semconv.TOOL_CALL_ID] for tool in recorded.all("tool")] == ["call_first", "call_second"]


@TOLD_OF_FAILURES
async def test_a_tool_that_does_not_exist_is_a_failed_tool(adapter, rollout, stub, made):
    stub.reply(tool_call("subtract", a=1, b=2), text("3"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add]))), "?")
    unknown = recorded.only("tool", "subtract")
    assert (unknown.failure.type, unknown.failure.message) == ("tool_error", "Tool not found")
    assert unknown.attributes[semconv.TOOL_CALL_ID] == "call_1"


@TOLD_OF_FAILURES
async def test_arguments_that_are_no_json_are_a_failed_tool(adapter, rollout, stub, made):
    stub.reply(calls('{"a": 1, "b"'), text("3"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add]))), "?")
    broken = recorded.only("tool", "add")
    assert "as JSON" in broken.failure.message
    assert broken.attributes[semconv.TOOL_CALL_ARGUMENTS] == '{"a": 1, "b"'
    assert broken.attributes[semconv.TOOL_CALL_ID] == "call_0"


@TOLD_OF_FAILURES
async def test_a_tool_that_raised_failed_once(adapter, rollout, stub, made):
    stub.reply(calls('{"a": -1, "b": 2}'), text("no"))
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add]))), "?")
    assert recorded.only("tool").failure.message == "only positive numbers"


@pytest.fixture
def by_text(monkeypatch: pytest.MonkeyPatch, made: Any) -> Any:
    """A model that is told of its tools in its prompt, and calls them in its text."""
    model = made.model()
    monkeypatch.setattr(type(model), "supports_function_calling", lambda self: False)
    return model


def acting(name: str, arguments: str) -> Answer:
    return text(f"Thought: I need it.\nAction: {name}\nAction Input: {arguments}")


DONE = text("Thought: I know.\nFinal Answer: 5")


async def test_tools_called_by_text(adapter, rollout, stub, made, by_text):
    stub.reply(acting("add", '{"a": 2, "b": 3}'), DONE)
    with rollout() as recorded:
        output = await adapter.run(made.crew(made.task(made.agent("solver", tools=[add], llm=by_text))), "?")
    assert output["output"] == "5"
    assert recorded.outline()[3:] == [
        "      llm chat stub-model [solver]",
        "      tool add [solver]",
        "      llm chat stub-model [solver]",
    ]
    attributes = recorded.only("tool").attributes
    assert attributes[semconv.TOOL_CALL_ARGUMENTS] == {"a": 2, "b": 3}
    assert attributes[semconv.TOOL_CALL_RESULT] == "5"
    assert semconv.TOOL_CALL_ID not in attributes


async def test_a_tool_called_by_text_that_raises_is_tried_again_by_crewai(adapter, rollout, stub, made, by_text):
    stub.reply(acting("add", '{"a": -2, "b": 3}'), DONE)
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add], llm=by_text))), "?")
    failures = [tool.failure for tool in recorded.all("tool")]
    assert len(failures) > 1
    assert {failure.exception for failure in failures} == {"builtins.ValueError"}


async def test_an_unknown_tool_called_by_text_is_one_failed_tool(adapter, rollout, stub, made, by_text):
    stub.reply(acting("subtract", '{"a": 2, "b": 3}'), DONE)
    with rollout() as recorded:
        await adapter.run(made.crew(made.task(made.agent("solver", tools=[add], llm=by_text))), "?")
    assert "subtract" in recorded.only("tool", "subtract").failure.message
