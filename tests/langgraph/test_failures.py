"""What goes wrong in an agent is recorded where it went wrong, and goes on as it would have."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentlightning import semconv
from agentlightning.recording import Recorder


def failures(recorded: Any) -> dict[str, str | None]:
    return {f"{span.kind} {span.name}": span.failure and span.failure.type for span in recorded.spans}


def graph_of(node: Any, **compile_options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("work", node)
    graph.add_edge(START, "work")
    return graph.compile(**compile_options)


def test_a_tool_that_raises_fails_and_so_does_everything_around_it(rollout, calculator, calls, ask):
    with rollout() as recorded, pytest.raises(ValueError, match="only positive"):
        calculator([calls("add", a=-1, b=3)], handle_tool_errors=False).invoke(ask)
    assert failures(recorded) == {
        "agent LangGraph": "agent_error",
        "agent think": None,
        "llm chat": None,
        "agent tools": "agent_error",
        "tool add": "tool_error",
    }
    failure = recorded.only("tool").failure
    assert (failure.exception, failure.message, failure.fault) == (
        "builtins.ValueError",
        "only positive numbers",
        "agent",
    )


def test_a_tool_error_that_the_graph_handles_is_still_the_tools_failure(rollout, calculator, calls, ask):
    with rollout() as recorded:
        calculator([calls("add", a=-1, b=3), AIMessage("?")], handle_tool_errors=True).invoke(ask)
    assert recorded.only("tool").failure.type == "tool_error"
    assert [span.name for span in recorded.spans if span.failure] == ["add"]


def test_a_tool_error_that_the_tool_handles_is_still_the_tools_failure(rollout, calls):
    @tool
    def refuse() -> str:
        """Refuses."""
        raise ToolException("not today")

    refuse.handle_tool_error = True
    with rollout() as recorded:
        refuse.invoke({"type": "tool_call", "name": "refuse", "args": {}, "id": "call_1"})
    assert (recorded.only("tool").failure.type, recorded.only("tool").failure.message) == ("tool_error", "not today")


def test_arguments_that_do_not_fit_are_a_tool_error(rollout, calculator, calls, ask):
    with rollout() as recorded:
        calculator([calls("add", a="two", b=3), AIMessage("?")], handle_tool_errors=True).invoke(ask)
    assert recorded.only("tool", "add").failure.type == "tool_error"


def test_a_call_of_a_tool_that_does_not_exist_is_a_tool_error(rollout, calculator, calls, ask):
    with rollout() as recorded:
        calculator([calls("subtract", "call_9", a=2, b=3), AIMessage("?")]).invoke(ask)
    call = recorded.only("tool", "subtract")
    assert call.failure.type == "tool_error"
    assert call.attributes[semconv.TOOL_CALL_ID] == "call_9"
    assert recorded.outline()[3:5] == ["  node tools [tools]", "    tool subtract [tools] !tool_error"]


def test_an_interrupt_is_no_failure(rollout, ask):
    graph = graph_of(lambda state: {"messages": [interrupt("Go on?")]}, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    with rollout() as recorded:
        assert graph.invoke(ask, thread)["__interrupt__"][0].value == "Go on?"
        graph.invoke(Command(resume="yes"), thread)
    assert not any(span.failure for span in recorded.spans)
    interrupted = [span.attributes.get(semconv.INTERRUPTED, False) for span in recorded.all("agent", "work")]
    assert interrupted == [True, False]


def test_handing_control_to_the_parent_graph_is_no_failure(rollout, ask):
    outer = StateGraph(MessagesState)
    outer.add_node("inner", graph_of(lambda state: Command(graph=Command.PARENT, goto="other")))
    outer.add_node("other", lambda state: {})
    outer.add_edge(START, "inner")
    with rollout() as recorded:
        outer.compile().invoke(ask)
    assert not any(span.failure for span in recorded.spans)
    assert recorded.only("agent", "other")


def test_a_graph_that_never_stops_is_a_failure_of_its_own_type(rollout, ask):
    graph = StateGraph(MessagesState)
    graph.add_node("spin", lambda state: {})
    graph.add_edge(START, "spin")
    graph.add_edge("spin", "spin")
    with rollout() as recorded, pytest.raises(GraphRecursionError):
        graph.compile().invoke(ask, {"recursion_limit": 3})
    assert failures(recorded) == {"agent LangGraph": "recursion_limit", "agent spin": None}


async def test_a_cancelled_agent_is_recorded_as_cancelled(rollout, ask):
    started = asyncio.Event()

    async def wait(state: MessagesState) -> dict[str, Any]:
        started.set()
        await asyncio.Event().wait()
        return {}

    with rollout() as recorded:
        running = asyncio.create_task(graph_of(wait).ainvoke(ask))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert failures(recorded) == {"agent LangGraph": "cancelled", "agent work": "cancelled"}


async def test_a_tool_cancelled_by_its_node_does_not_break_the_rollout(rollout, ask):
    @tool
    async def slow() -> str:
        """Never ends."""
        await asyncio.Event().wait()
        return ""

    async def impatient(state: MessagesState) -> dict[str, Any]:
        call = asyncio.create_task(slow.ainvoke({}))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return {}

    with rollout() as recorded:
        await graph_of(impatient).ainvoke(ask)
    assert recorded.only("agent", "work").failure is None


class Broken(FakeListChatModel):
    """A model whose endpoint fails."""

    error: Any = None

    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise self.error


class StatusError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


REQUEST = httpx.Request("POST", "http://127.0.0.1")
INFRA = "infrastructure"


@pytest.mark.parametrize(
    ("error", "type", "fault"),
    [
        (StatusError(429), "rate_limited", INFRA),
        (StatusError(503), "engine_unavailable", INFRA),
        (StatusError(401), "authentication_failed", INFRA),
        (TimeoutError("too slow"), "timeout", INFRA),
        (ConnectionRefusedError("nobody there"), "engine_unavailable", INFRA),
        (httpx.HTTPStatusError("503", request=REQUEST, response=httpx.Response(503)), "engine_unavailable", INFRA),
        (httpx.HTTPStatusError("400", request=REQUEST, response=httpx.Response(400)), "bad_request", "agent"),
        (httpx.ConnectError("nobody there"), "engine_unavailable", INFRA),
        (StatusError(400), "bad_request", "agent"),
        (StatusError(413), "context_too_long", "agent"),
        (ValueError("bad"), "agent_error", "agent"),
    ],
)
def test_a_model_that_fails_says_whose_fault_it_was(rollout, ask, error, type, fault):
    model = Broken(responses=[], error=error)
    with rollout() as recorded, pytest.raises(error.__class__):
        model.invoke("Hello?")
    call = recorded.only("llm")
    assert (call.failure.type, call.failure.fault) == (type, fault)
    assert call.generation.messages == [{"role": "user", "content": "Hello?"}]
    assert call.generation.response is None


def test_an_agent_is_not_harmed_by_a_recorder_that_fails(rollout, calculator, calls, ask, monkeypatch, caplog):
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the recorder is broken")

    with rollout():
        monkeypatch.setattr(Recorder, "start", broken)
        monkeypatch.setattr(Recorder, "end", broken)
        with caplog.at_level(logging.ERROR, "agentlightning_langgraph"):
            result = calculator([calls("add", a=2, b=3), AIMessage("5")]).invoke(ask)
        monkeypatch.undo()
    assert result["messages"][-1].content == "5"
    assert "the recorder is broken" in caplog.text


def test_a_rollout_that_has_ended_records_nothing_more(rollout, scripted, ask):
    agent = create_agent(scripted([AIMessage("5"), AIMessage("6")]))
    with rollout() as recorded:
        agent.invoke(ask)
        recorded.recorder.close()
        spans, runs = len(recorded.spans), len(recorded.recorder.adapter_state["langgraph"])
        agent.invoke(ask)
    assert (len(recorded.spans), len(recorded.recorder.adapter_state["langgraph"])) == (spans, runs)
