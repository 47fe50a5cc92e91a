"""A tool that waits for an approval: the run stops and goes on, and the tool's call is one span."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, Runner, RunState, function_tool
from stub_answers import text

from agentlightning import semconv

pytestmark = pytest.mark.asyncio


@pytest.fixture
def pay() -> Any:
    @function_tool(needs_approval=True)
    def pay(amount: int) -> str:
        """Pays."""
        return f"paid {amount}"

    return pay


async def run(agent: Agent, what: Any, streamed: bool = False) -> Any:
    if not streamed:
        return await Runner.run(agent, what)
    result = Runner.run_streamed(agent, what)
    async for _ in result.stream_events():
        pass
    return result


async def decide(agent: Agent, *, rejects: bool = False, streamed: bool = False, stored: bool = False) -> Any:
    """Runs the agent, decides on what it asks for, and has it go on."""
    result = await run(agent, "Pay the bill.", streamed)
    state = result.to_state()
    if stored:
        state = await RunState.from_string(agent, state.to_string())
    for asked in state.get_interruptions():
        state.reject(asked) if rejects else state.approve(asked)
    return (await run(agent, state, streamed)).final_output


def told_of(tool: Any) -> dict[str, Any]:
    keys = {
        "id": semconv.TOOL_CALL_ID,
        "arguments": semconv.TOOL_CALL_ARGUMENTS,
        "interrupted": semconv.INTERRUPTED,
        "result": semconv.TOOL_CALL_RESULT,
    }
    return {name: tool.attributes[key] for name, key in keys.items() if key in tool.attributes}


@pytest.mark.parametrize("way", [{}, {"streamed": True}, {"stored": True}])
@pytest.mark.parametrize("chat", [False, True])
async def test_an_approved_tool_is_one_span(make, pay, stub, calls, rollout, way, chat):
    stub.reply(calls(("pay", '{"amount": 7}')), text("Paid."))
    with rollout() as ran:
        assert await decide(make("clerk", tools=[pay], chat=chat), **way) == "Paid."
    paid = ran.only("tool")
    assert told_of(paid) == {"id": "call_0", "arguments": {"amount": 7}, "interrupted": True, "result": "paid 7"}
    assert (paid.agent, paid.failure) == ("clerk", None)
    assert ran.agents() == ["clerk", "clerk"]


async def test_a_rejected_tool_has_what_the_model_is_told_as_its_result(make, pay, stub, calls, rollout):
    stub.reply(calls(("pay", '{"amount": 7}')), text("I may not."))
    with rollout() as ran:
        await decide(make("clerk", tools=[pay]), rejects=True)
    told = told_of(ran.only("tool"))
    assert (told["id"], told["interrupted"]) == ("call_0", True)
    assert "not approved" in told["result"]


async def test_a_tool_that_nobody_decides_on_was_interrupted(make, pay, stub, calls, rollout):
    stub.reply(calls(("pay", '{"amount": 7}')))
    with rollout() as ran:
        await Runner.run(make("clerk", tools=[pay]), "Pay the bill.")
    assert told_of(ran.only("tool")) == {"id": "call_0", "arguments": {"amount": 7}, "interrupted": True}
    assert ran.only("tool").failure is None


async def test_calls_at_once_keep_apart(make, pay, add, stub, calls, rollout):
    same = ("pay", '{"amount": 7}')
    stub.reply(calls(("pay", '{"amount": 1}'), same, same, ("add", '{"a": 2, "b": 3}')), text("Paid."))
    with rollout() as ran:
        await decide(make("clerk", tools=[pay, add]))
    told = {tool["id"]: (tool.get("interrupted"), tool["result"]) for tool in map(told_of, ran.all("tool"))}
    assert told == {
        "call_0": (True, "paid 1"),
        "call_1": (True, "paid 7"),
        "call_2": (True, "paid 7"),
        "call_3": (None, 5),
    }


async def test_a_tool_of_an_agent_that_is_a_tool(make, pay, stub, calls, rollout):
    clerk = make("clerk", tools=[pay]).as_tool("ask_clerk", "Asks the clerk.")
    stub.reply(calls(("ask_clerk", '{"input": "Pay."}')), calls(("pay", '{"amount": 7}'), first=1))
    stub.reply(text("It is paid."), text("Done."))
    with rollout() as ran:
        assert await decide(make("boss", tools=[clerk])) == "Done."
    assert [(tool.name, tool.agent, told_of(tool)["result"]) for tool in ran.all("tool")] == [
        ("ask_clerk", "boss", "It is paid."),
        ("pay", "clerk", "paid 7"),
    ]
    assert all(told_of(tool)["interrupted"] for tool in ran.all("tool"))
    assert ran.agents() == ["boss", "clerk", "clerk", "boss"]


async def test_a_tool_that_returns_nothing_was_not_interrupted(make, stub, calls, rollout):
    @function_tool
    def note(text: str) -> None:
        """Notes something."""

    stub.reply(calls(("note", '{"text": "Seven."}')), text("Noted."))
    with rollout() as ran:
        await Runner.run(make("clerk", tools=[note]), "Note it.")
    assert told_of(ran.only("tool")) == {"id": "call_0", "arguments": {"text": "Seven."}}
