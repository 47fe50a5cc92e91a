"""However an agent is run, each rollout gets its own spans, all of them, and nobody else's."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.tracers import context as langchain_hooks
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Send

from agentlightning.recording import annotate, context, current
from agentlightning_langgraph.span_stack import stack

OUTLINE = [
    "graph LangGraph [LangGraph]",
    "  node think [think]",
    "    llm chat [think]",
    "  node tools [tools]",
    "    tool add [tools]",
    "  node think [think]",
    "    llm chat [think]",
]


@pytest.fixture
def graph(calculator: Any, calls: Any) -> Any:
    return calculator([calls("add", a=2, b=3), AIMessage("5")])


def test_streaming_records_the_same_as_invoking(rollout, graph, ask):
    with rollout() as recorded:
        assert len(list(graph.stream(ask))) == 3
    assert recorded.outline() == OUTLINE


def test_streaming_tokens_records_the_whole_answer(rollout, calculator, ask):
    with rollout() as recorded:
        assert len(list(calculator([AIMessage("It is five")]).stream(ask, stream_mode="messages"))) > 1
    assert recorded.outline() == OUTLINE[:3]
    assert recorded.only("llm").generation.response == {"role": "assistant", "content": "It is five"}


async def test_asynchronous_streaming_records_the_same_as_invoking(rollout, graph, ask):
    with rollout() as recorded:
        assert len([part async for part in graph.astream(ask)]) == 3
    assert recorded.outline() == OUTLINE


async def test_synchronous_nodes_of_an_asynchronous_run_are_recorded(rollout, graph, ask):
    with rollout() as recorded:
        await graph.ainvoke(ask)
    assert recorded.outline() == OUTLINE


def test_a_stream_that_is_left_early_is_no_failure(rollout, ask):
    model = FakeListChatModel(responses=["a long answer"])
    with rollout() as recorded:
        stream = model.stream("Hello?")
        next(stream)
        stream.close()
    assert recorded.only("llm").failure is None
    assert recorded.only("llm").ended_at is not None


def echo_graph() -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("echo", lambda state: {"messages": [FakeListChatModel(responses=["!"]).invoke(state["messages"])]})
    graph.add_edge(START, "echo")
    return graph.compile()


ECHO = ["graph LangGraph [LangGraph]", "  node echo [echo]", "    llm chat [echo]"]


def trees(recorded: Any) -> Counter[tuple[str, ...]]:
    """How often each whole tree occurs."""
    found: list[list[str]] = []
    by_parent: dict[str | None, list[Any]] = {}
    for span in recorded.spans:
        by_parent.setdefault(span.parent_id, []).append(span)
    for root in by_parent[None]:
        lines, waiting = [], [root]
        while waiting:
            span = waiting.pop(0)
            lines.append(f"{span.kind} {span.name}")
            waiting[:0] = by_parent.get(span.id, [])
        found.append(lines)
    return Counter(map(tuple, found))


def test_each_run_of_a_batch_is_a_tree_of_its_own(rollout):
    with rollout() as recorded:
        echo_graph().batch([{"messages": [("user", str(n))]} for n in range(5)])
    assert trees(recorded) == {("agent LangGraph", "agent echo", "llm chat"): 5}


async def test_each_run_of_an_asynchronous_batch_is_a_tree_of_its_own(rollout):
    with rollout() as recorded:
        await echo_graph().abatch([{"messages": [("user", str(n))]} for n in range(5)])
    assert trees(recorded) == {("agent LangGraph", "agent echo", "llm chat"): 5}


def test_a_batch_of_prompts_is_a_call_each(rollout):
    with rollout() as recorded:
        FakeListChatModel(responses=["!"]).generate([[HumanMessage("a")], [HumanMessage("b")]])
    said = [span.generation.messages[0]["content"] for span in recorded.all("llm")]
    assert said == ["a", "b"]


def test_a_rollout_inside_of_another_keeps_its_spans_to_itself(rollout, ask):
    inner: list[Any] = []

    def nested(state: MessagesState) -> dict[str, Any]:
        with rollout("inner") as recorded:
            annotate("note")
            echo_graph().invoke(ask)
        inner.append(recorded)
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("nested", nested)
    graph.add_edge(START, "nested")
    with rollout("outer") as outer:
        graph.compile().invoke(ask)
    assert outer.outline() == ["graph LangGraph [LangGraph]", "  node nested [nested]"]
    assert inner[0].outline() == ["annotation note [None]", *ECHO]


def test_a_thread_that_has_lost_the_context_is_placed_by_its_config(rollout, ask):
    model = FakeListChatModel(responses=["!"])

    def fan_out(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda text: model.invoke(text, config), ["a", "b"]))
        return {"messages": answers}

    graph = StateGraph(MessagesState)
    graph.add_node("fan_out", fan_out)
    graph.add_edge(START, "fan_out")
    with rollout() as recorded:
        graph.compile().invoke(ask)
    assert recorded.outline()[1:] == ["  node fan_out [fan_out]"] + ["    llm chat [fan_out]"] * 2


def test_nothing_is_recorded_outside_a_rollout(rollout, graph, ask):
    with rollout() as recorded:
        pass
    graph.invoke(ask)
    assert recorded.spans == []


def test_nothing_is_recorded_after_uninstalling(rollout, adapter, graph, ask):
    adapter.uninstall()
    with rollout() as recorded:
        graph.invoke(ask)
    assert recorded.spans == []


def test_installing_twice_records_once(rollout, adapter, graph, ask):
    adapter.install()
    with rollout() as recorded:
        graph.invoke(ask)
    assert recorded.outline() == OUTLINE


def test_installing_again_registers_no_second_handler(adapter):
    count = len(langchain_hooks._configure_hooks)
    adapter.uninstall()
    adapter.install()
    assert len(langchain_hooks._configure_hooks) == count


def test_uninstalling_twice_is_allowed_and_takes_the_locator_out(adapter):
    with_ours = list(context._locators)
    adapter.uninstall()
    adapter.uninstall()
    (ours,) = (locator for locator in with_ours if locator not in context._locators)
    assert ours == stack.locate


ROLLOUTS = 64
BRANCHES = 3


def busy_graph() -> Any:
    """Fans out to synchronous workers, each of which asks a model and a tool, then joins in a model node."""

    @tool
    async def note(number: int) -> str:
        """Notes which rollout it runs in."""
        await asyncio.sleep(0)
        return current().rollout_id

    def fan(state: MessagesState) -> list[Send]:
        return [Send("work", {"messages": [*state["messages"], ("user", str(n))]}) for n in range(BRANCHES)]

    def work(state: dict[str, Any]) -> dict[str, Any]:
        model = FakeListChatModel(responses=[current().rollout_id])
        return {"messages": [model.invoke(state["messages"])]}

    async def join(state: MessagesState) -> dict[str, Any]:
        if isinstance(state["messages"][-1], AIMessage):
            return {"messages": [AIMessage("", tool_calls=[{"name": "note", "args": {"number": 1}, "id": "c"}])]}
        return {"messages": [await FakeListChatModel(responses=["done"]).ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_node("join", join)
    graph.add_node("tools", ToolNode([note]))
    graph.add_conditional_edges(START, fan, ["work"])
    graph.add_edge("work", "join")
    graph.add_conditional_edges("join", tools_condition)
    graph.add_edge("tools", "join")
    return graph.compile()


async def test_many_rollouts_at_once_keep_their_spans_apart(rollout):
    graph = busy_graph()

    async def run(number: int) -> Any:
        with rollout(f"rollout-{number}") as recorded:
            await graph.ainvoke({"messages": [("user", f"rollout-{number}")]})
        return recorded

    everything = await asyncio.gather(*(run(number) for number in range(ROLLOUTS)))
    for number, recorded in enumerate(everything):
        name = f"rollout-{number}"
        assert Counter((span.kind, span.name) for span in recorded.spans) == {
            ("agent", "LangGraph"): 1,
            ("agent", "work"): BRANCHES,
            ("llm", "chat"): BRANCHES + 1,
            ("agent", "join"): 2,
            ("agent", "tools"): 1,
            ("tool", "note"): 1,
        }
        assert {span.rollout_id for span in recorded.spans} == {name}
        assert all(span.generation.messages[0]["content"] == name for span in recorded.all("llm"))
        assert recorded.only("tool").attributes["gen_ai.tool.call.result"] == name


def test_rollouts_in_threads_keep_their_spans_apart(rollout):
    graph = echo_graph()
    barrier = threading.Barrier(8)

    def run(number: int) -> Any:
        with rollout(f"rollout-{number}") as recorded:
            barrier.wait()
            graph.invoke({"messages": [("user", f"rollout-{number}")]})
        return recorded

    with ThreadPoolExecutor(8) as pool:
        everything = list(pool.map(run, range(8)))
    for number, recorded in enumerate(everything):
        assert recorded.outline() == ECHO
        assert recorded.only("llm").generation.messages[0]["content"] == f"rollout-{number}"
