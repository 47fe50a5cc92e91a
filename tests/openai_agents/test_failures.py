"""What goes wrong, and what it is called."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    MaxTurnsExceeded,
    ModelBehaviorError,
    OutputGuardrail,
    Runner,
    function_tool,
)
from stub_answers import Answer, Choice, error, text

from agentlightning import semconv


@pytest.mark.parametrize("chat", [False, True])
async def test_a_tools_exception_that_became_an_answer_is_known(adapter, make, add, stub, calls, rollout, chat):
    stub.reply(calls(("add", '{"a": -2, "b": 3}')), text("no"))
    with rollout() as ran:
        assert await adapter.run(make("solver", chat=chat, tools=[add]), "?") == "no"
    tool = ran.only("tool")
    assert (tool.failure.type, tool.failure.fault) == ("tool_error", "agent")
    assert (tool.failure.exception, tool.failure.message) == ("builtins.ValueError", "only positive numbers")
    assert "raise ValueError" in tool.failure.traceback
    assert "An error occurred" in tool.attributes[semconv.TOOL_CALL_RESULT], "what the model is told"
    assert [span for span in ran.spans if span.failure is not None] == [tool]


async def test_a_tools_exception_that_ends_the_run_is_the_tools_and_the_agents(adapter, make, stub, calls, rollout):
    @function_tool(failure_error_function=None)
    async def fail() -> str:
        """Fails."""
        raise KeyError("gone")

    stub.reply(calls(("fail", "{}")))
    with rollout() as ran, pytest.raises(Exception, match="gone"):
        await adapter.run(make("solver", tools=[fail]), "?")
    assert (ran.only("tool").failure.type, ran.only("tool").failure.exception) == ("tool_error", "builtins.KeyError")
    for name in ("solver", "turn 1", "Agent workflow"):
        assert ran.only("agent", name).failure.type == "agent_error"
    assert ran.only("llm").failure is None


async def test_an_answer_of_the_users_own_to_a_tools_exception(adapter, make, stub, calls, rollout):
    @function_tool(failure_error_function=lambda context, error: f"sorry: {error}")
    def fail() -> str:
        """Fails."""
        raise LookupError("gone")

    stub.reply(calls(("fail", "{}")), text("no"))
    with rollout() as ran:
        await adapter.run(make("solver", tools=[fail]), "?")
    assert ran.only("tool").failure.exception == "builtins.LookupError"
    assert ran.only("tool").attributes[semconv.TOOL_CALL_RESULT] == "sorry: gone"


@pytest.mark.parametrize("behavior", ["raise_exception", "error_as_result"])
async def test_a_tool_that_takes_too_long(adapter, make, stub, calls, rollout, behavior):
    @function_tool(timeout=0.01, timeout_behavior=behavior)
    async def wait() -> str:
        """Waits."""
        return await asyncio.get_running_loop().create_future()

    stub.reply(calls(("wait", "{}")), text("no"))
    with rollout() as ran:
        await asyncio.gather(adapter.run(make("solver", tools=[wait]), "?"), return_exceptions=True)
    tool = ran.only("tool")
    if behavior == "raise_exception":
        assert (tool.failure.type, tool.failure.exception) == ("tool_error", "agents.exceptions.ToolTimeoutError")
    else:  # the SDK tells only the model
        assert (tool.failure, "timed out" in tool.attributes[semconv.TOOL_CALL_RESULT]) == (None, True)


async def test_arguments_that_are_no_json_are_kept_as_they_came(adapter, make, add, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2,')), text("no"))
    with rollout() as ran:
        await adapter.run(make("solver", tools=[add]), "?")
    tool = ran.only("tool")
    assert tool.failure.type == "tool_error"
    assert tool.attributes[semconv.TOOL_CALL_ARGUMENTS] == '{"a": 2,'


async def test_a_tool_that_does_not_exist_is_the_agents_failure(adapter, make, add, stub, calls, rollout):
    stub.reply(calls(("subtract", "{}")))
    with rollout() as ran, pytest.raises(Exception, match="subtract"):
        await adapter.run(make("solver", tools=[add]), "?")
    failure = ran.only("agent", "solver").failure
    assert (failure.type, failure.exception) == ("agent_error", "agents.exceptions.ModelBehaviorError")
    assert ran.all("tool") == []


async def test_too_many_turns(make, add, stub, calls, rollout):
    stub.reply(*(calls(("add", '{"a": 1, "b": 1}'), first=place) for place in range(2)))
    with rollout() as ran, pytest.raises(MaxTurnsExceeded):
        await Runner.run(make("solver", tools=[add]), "?", max_turns=2)
    assert ran.only("agent", "solver").failure.type == "recursion_limit"
    assert [ran.only("agent", f"turn {turn}").failure for turn in (1, 2)] == [None, None]


async def test_an_output_guardrail_that_trips_fails_the_agent(adapter, make, stub, rollout):
    def trips(context: Any, agent: Agent, said: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput("long", tripwire_triggered=True)

    with rollout() as ran, pytest.raises(Exception, match="tripwire"):
        await adapter.run(make("solver", output_guardrails=[OutputGuardrail(trips, "short")]), "?")
    assert ran.only("agent", "solver").failure.type == "guardrail_tripped"
    assert ran.only("agent", "short").failure is None


async def test_a_model_that_does_not_answer_is_the_infrastructures(adapter, make, stub, rollout):
    stub.reply(error(500))
    with rollout() as ran, pytest.raises(Exception, match="500"):
        await adapter.run(make("solver"), "?")
    assert (ran.only("llm").failure.type, ran.only("llm").failure.fault) == ("engine_unavailable", "infrastructure")
    assert ran.only("agent", "solver").failure.type == "agent_error"


async def test_an_answer_that_was_cut_off_is_kept_whatever_becomes_of_the_run(adapter, make, stub, rollout):
    stub.reply(Answer([Choice("It is", finish_reason="length")]))
    with rollout() as ran:
        (output,) = await asyncio.gather(adapter.run(make("solver"), "?"), return_exceptions=True)
    call, agent = ran.only("llm"), ran.only("agent", "solver")
    assert (call.failure, call.generation.finish_reason) == (None, "length")
    assert call.generation.response["content"] == "It is"
    assert (output == "It is") == (agent.failure is None)
    assert isinstance(output, ModelBehaviorError) == (agent.failure is not None)


async def test_an_agent_that_stands_in_for_one_that_failed_has_not_failed(make, stub, rollout):
    stub.reply(error(400), text("5"))
    with rollout() as ran:
        try:
            await Runner.run(make("first"), "?")
        except Exception:  # noqa: BLE001 - the second runs while the first one's exception is being handled
            await Runner.run(make("second"), "?")
    assert ran.only("agent", "first").failure.type == "agent_error"
    assert [span.failure for span in ran.spans if span.agent == "second"] == [None, None, None]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_run_that_is_cancelled_in_a_tool(make, stub, calls, rollout, streamed):
    begun = asyncio.Event()

    @function_tool
    async def wait() -> str:
        """Waits."""
        begun.set()
        return await asyncio.get_running_loop().create_future()

    async def run() -> None:
        agent = make("solver", tools=[wait])
        if not streamed:
            await Runner.run(agent, "?")
            return
        async for _ in Runner.run_streamed(agent, "?").stream_events():
            pass

    stub.reply(calls(("wait", "{}")))
    with rollout() as ran:
        task = asyncio.create_task(run())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    failures = {span.name: span.failure.type for span in ran.spans if span.failure is not None}
    assert failures == dict.fromkeys(("wait", "turn 1", "solver", "Agent workflow"), "cancelled")
    assert ran.only("tool").attributes[semconv.TOOL_NAME] == "wait"
