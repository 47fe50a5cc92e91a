"""Who acts where agents are graphs with a name: `create_react_agent`, loops written by hand, agents in agents."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command, interrupt

from agentlightning import semconv

pytestmark = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")

SUPERVISOR = [
    "agent supervisor [supervisor]",
    "  node agent [supervisor]",
    "    llm chat [supervisor]",
    "  node tools [supervisor]",
    "    tool add [supervisor]",
    "  node agent [supervisor]",
    "    llm chat [supervisor]",
]


@pytest.fixture
def supervisor(scripted, calls, add) -> Any:
    return create_react_agent(scripted([calls("add", a=2, b=3), AIMessage("5")]), [add], name="supervisor")


def graph_of(node: str, what: Any, name: str = "office", **options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node(node, what)
    graph.add_edge(START, node)
    return graph.compile(name=name, **options)


def indented(lines: list[str], by: int = 2) -> list[str]:
    return ["  " * by + line for line in lines]


def test_a_prebuilt_agent_by_itself(rollout, supervisor, ask):
    with rollout() as recorded:
        supervisor.invoke(ask)
    assert recorded.outline() == SUPERVISOR


@pytest.mark.parametrize("node", ["supervisor", "desk"])
@pytest.mark.parametrize("as_function", [False, True])
def test_a_prebuilt_agent_in_a_graph_keeps_its_name(rollout, supervisor, ask, node, as_function):
    what = (lambda state: supervisor.invoke(state)) if as_function else supervisor
    with rollout() as recorded:
        graph_of(node, what).invoke(ask)
    assert recorded.outline() == ["graph office [office]", f"  node {node} [{node}]", *indented(SUPERVISOR)]


def test_an_agents_hooks_and_its_structured_answer_are_its_own(rollout, scripted, ask):
    def look(state: Any) -> dict[str, Any]:
        model.invoke("Is it short enough?")
        return {}

    model = scripted([AIMessage("yes"), AIMessage("5"), AIMessage("yes")])
    agent = create_react_agent(model, [], name="expert", pre_model_hook=look, post_model_hook=look)
    with rollout() as recorded:
        graph_of("desk", agent).invoke(ask)
    assert recorded.agents() == ["expert"] * 3


@pytest.mark.parametrize("names", [("agent", "tools"), ("model", "tools"), ("llm_call", "tool_node")])
def test_a_loop_written_by_hand_is_an_agent_of_its_graphs_name(rollout, scripted, calls, add, ask, names):
    thinks, acts = names
    model = scripted([calls("add", a=2, b=3), AIMessage("5")])
    graph = StateGraph(MessagesState)
    graph.add_node(thinks, lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node(acts, ToolNode([add]))
    graph.add_edge(START, thinks)
    graph.add_conditional_edges(thinks, tools_condition, {"tools": acts, "__end__": "__end__"})
    graph.add_edge(acts, thinks)
    with rollout() as recorded:
        graph_of("desk", graph.compile(name="researcher")).invoke(ask)
    assert recorded.agents() == ["researcher", "researcher"]
    assert recorded.only("tool").agent == "researcher"
    assert recorded.outline()[2] == "    agent researcher [researcher]"


def test_nodes_with_names_of_their_own_are_agents_in_a_named_graph_too(rollout, scripted, calls, add, ask):
    model = scripted([AIMessage("a plan"), calls("add", a=2, b=3)])
    graph = StateGraph(MessagesState)
    for node in ("plan", "solve"):
        graph.add_node(node, lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([add]))
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "solve")
    graph.add_edge("solve", "tools")
    team = graph.compile(name="team")
    with rollout() as alone:
        team.invoke(ask)
    assert [(span.name, span.agent) for span in alone.all("agent")] == [
        ("team", "team"),
        ("plan", "plan"),
        ("solve", "solve"),
        ("tools", "tools"),
    ]
    model.messages = iter([AIMessage("a plan"), calls("add", a=2, b=3)])
    with rollout() as nested:
        graph_of("desk", team).invoke(ask)
    assert nested.agents() == ["team/plan", "team/solve"], "by the name of their graph, not of the node that it is in"


@pytest.mark.parametrize("outer", [create_react_agent, create_agent])
@pytest.mark.parametrize("inner", [create_react_agent, create_agent])
def test_a_named_agent_in_a_tool_of_another(rollout, scripted, calls, ask, outer, inner):
    expert = inner(scripted([AIMessage("5")]), [], name="expert")

    @tool
    def consult(question: str) -> str:
        """Asks the expert."""
        return expert.invoke({"messages": [("user", question)]})["messages"][-1].text

    boss = outer(scripted([calls("consult", question="2 + 3"), AIMessage("It is 5.")]), [consult], name="boss")
    with rollout() as recorded:
        boss.invoke(ask)
    assert recorded.agents() == ["boss", "expert", "boss"]
    assert recorded.only("tool").agent == "boss"
    assert [span.agent for span in recorded.all("agent", "expert")] == ["expert"]


def test_a_graph_without_a_name_in_a_tool_belongs_to_the_agent(rollout, scripted, calculator, calls, ask):
    helper = calculator([AIMessage("5")])

    @tool
    def delegate(question: str) -> str:
        """Asks the helper."""
        return helper.invoke({"messages": [("user", question)]})["messages"][-1].text

    boss = create_react_agent(scripted([calls("delegate", question="2 + 3"), AIMessage("5")]), [delegate], name="boss")
    with rollout() as recorded:
        boss.invoke(ask)
    assert recorded.agents() == ["boss", "boss", "boss"]


@pytest.mark.parametrize("make", [create_react_agent, create_agent])
def test_agents_that_hand_over_by_commands(rollout, scripted, calls, ask, make):
    @tool
    def transfer_to_bob() -> Command[Any]:
        """Hands over to Bob."""
        done = ToolMessage("Bob takes over.", tool_call_id="call_1")
        return Command(goto="bob", graph=Command.PARENT, update={"messages": [done]})

    alice = make(scripted([calls("transfer_to_bob")]), [transfer_to_bob], name="alice")
    graph = StateGraph(MessagesState)
    graph.add_node("alice", alice, destinations=("bob",))
    graph.add_node("bob", make(scripted([AIMessage("Bob here.")]), [], name="bob"))
    graph.add_edge(START, "alice")
    with rollout() as recorded:
        graph.compile().invoke(ask)
    assert recorded.agents() == ["alice", "bob"]
    assert recorded.only("tool").agent == "alice"
    assert all(span.failure is None for span in recorded.spans)


@pytest.mark.parametrize("make", [create_react_agent, create_agent])
def test_a_tool_that_waits_for_an_answer_is_one_span(rollout, scripted, calls, ask, make):
    """The graph runs twice, and so does the tool; its call is one."""

    @tool
    def pay(amount: int) -> str:
        """Pays."""
        return f"{interrupt('Really?')}, paid {amount}"

    model = scripted([calls("pay", "call_7", amount=3), AIMessage("Done.")])
    desk = graph_of("desk", make(model, [pay], name="clerk"), checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    with rollout() as recorded:
        assert "__interrupt__" in desk.invoke(ask, thread)
        desk.invoke(Command(resume="yes"), thread)
    paid = recorded.only("tool")
    assert (paid.agent, paid.failure) == ("clerk", None)
    assert paid.attributes[semconv.INTERRUPTED] is True
    assert paid.attributes[semconv.TOOL_CALL_ID] == "call_7"
    assert paid.attributes[semconv.TOOL_CALL_RESULT] == "yes, paid 3"
    assert recorded.agents() == ["clerk", "clerk"]


def test_a_tool_that_nobody_answers_was_interrupted(rollout, scripted, calls, ask):
    @tool
    def pay() -> str:
        """Pays."""
        return str(interrupt("Really?"))

    with rollout() as recorded:
        create_react_agent(scripted([calls("pay")]), [pay], checkpointer=InMemorySaver()).invoke(
            ask, {"configurable": {"thread_id": "1"}}
        )
    assert recorded.only("tool").failure is None
    assert recorded.only("tool").attributes[semconv.INTERRUPTED] is True
