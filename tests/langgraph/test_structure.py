"""Which spans a graph, an agent or a chain makes, where they hang, and whose they are."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from agentlightning import semconv
from agentlightning.recording import add_locator, annotate, remove_locator, span


class Numbers(TypedDict):
    numbers: Annotated[list[int], operator.add]


def test_a_graph_makes_spans_for_itself_its_nodes_its_models_and_its_tools(rollout, calculator, calls, ask):
    with rollout() as recorded:
        calculator([calls("add", a=2, b=3), AIMessage("5")]).invoke(ask)
    assert recorded.outline() == [
        "graph LangGraph [LangGraph]",
        "  node think [think]",
        "    llm chat [think]",
        "  node tools [tools]",
        "    tool add [tools]",
        "  node think [think]",
        "    llm chat [think]",
    ]
    assert all(span.ended_at is not None and span.failure is None for span in recorded.spans)


def test_a_tool_span_has_arguments_result_and_call_id(rollout, calculator, calls, ask):
    with rollout() as recorded:
        calculator([calls("add", "call_7", a=2, b=3), AIMessage("5")]).invoke(ask)
    assert recorded.only("tool").attributes == {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: "add",
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_DESCRIPTION: "Adds two numbers.",
        semconv.TOOL_CALL_ID: "call_7",
        semconv.TOOL_CALL_ARGUMENTS: {"a": 2, "b": 3},
        semconv.TOOL_CALL_RESULT: "5",
    }


def test_a_named_agent_gives_its_name_to_everything_in_it(rollout, scripted, calls, add, ask):
    agent = create_agent(scripted([calls("add", a=2, b=3), AIMessage("5")]), [add], name="accountant")
    with rollout() as recorded:
        agent.invoke(ask)
    assert recorded.outline() == [
        "agent accountant [accountant]",
        "  node model [accountant]",
        "    llm chat [accountant]",
        "  node tools [accountant]",
        "    tool add [accountant]",
        "  node model [accountant]",
        "    llm chat [accountant]",
    ]
    assert recorded.spans[0].attributes[semconv.OPERATION_NAME] == "invoke_agent"


def test_an_agent_without_a_name_is_named_by_its_nodes(rollout, scripted, add, ask):
    with rollout() as recorded:
        create_agent(scripted([AIMessage("5")]), [add]).invoke(ask)
    assert recorded.outline() == ["agent LangGraph [LangGraph]", "  node model [model]", "    llm chat [model]"]


def test_nodes_of_a_subgraph_are_named_by_their_path(rollout, scripted, calculator, ask):
    outer = StateGraph(MessagesState)
    outer.add_node("draft", calculator([AIMessage("5")]))
    outer.add_node("check", create_agent(scripted([AIMessage("right")])))
    outer.add_edge(START, "draft")
    outer.add_edge("draft", "check")
    with rollout() as recorded:
        outer.compile(name="team").invoke(ask)
    assert recorded.outline() == [
        "graph team [team]",
        "  node draft [draft]",
        "    graph LangGraph [draft]",
        "      node think [draft/think]",
        "        llm chat [draft/think]",
        "  node check [check]",
        "    agent LangGraph [check]",
        "      node model [check/model]",
        "        llm chat [check/model]",
    ]


def test_a_graph_run_by_a_tool_hangs_under_that_tool(rollout, scripted, calculator, calls, ask):
    helper = calculator([AIMessage("5")])

    @tool
    def delegate(question: str) -> str:
        """Asks the helper."""
        return helper.invoke({"messages": [("user", question)]})["messages"][-1].content

    boss = create_agent(scripted([calls("delegate", question="2 + 3"), AIMessage("5")]), [delegate], name="boss")
    with rollout() as recorded:
        boss.invoke(ask)
    assert recorded.outline()[3:8] == [
        "  node tools [boss]",
        "    tool delegate [boss]",
        "      graph LangGraph [boss]",
        "        node think [boss]",
        "          llm chat [boss]",
    ]


def test_parallel_sends_are_nodes_side_by_side(rollout):
    graph = StateGraph(Numbers)
    graph.add_node("double", lambda state: {"numbers": [state["numbers"][0] * 2]})
    graph.add_conditional_edges(START, lambda state: [Send("double", {"numbers": [n]}) for n in state["numbers"]])
    with rollout() as recorded:
        result = graph.compile().invoke({"numbers": [1, 2, 3]})
    assert result == {"numbers": [1, 2, 3, 2, 4, 6]}
    assert recorded.outline() == ["graph LangGraph [LangGraph]"] + ["  node double [double]"] * 3


def test_functional_tasks_are_nodes(rollout):
    @task
    def double(number: int) -> int:
        return number * 2

    @entrypoint()
    def flow(number: int) -> int:
        return double(number).result() + double(number + 1).result()

    with rollout() as recorded:
        assert flow.invoke(1) == 6
    assert recorded.outline() == [
        "graph LangGraph [LangGraph]",
        "  node flow [flow]",
        "    node double [flow/double]",
        "    node double [flow/double]",
    ]


def chain() -> Any:
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    return RunnablePassthrough() | prompt | FakeListChatModel(responses=["yes"]) | StrOutputParser()


def test_the_plumbing_of_a_chain_makes_no_spans(rollout):
    with rollout() as recorded:
        assert (chain() | RunnableLambda(str.upper)).invoke({"question": "Is it?"}) == "YES"
    assert recorded.outline() == ["llm chat [None]"]


def test_a_prompt_by_itself_makes_no_span(rollout):
    with rollout() as recorded:
        ChatPromptTemplate.from_messages([("user", "{question}")]).invoke({"question": "Is it?"})
    assert recorded.outline() == []


def test_a_named_chain_is_an_agent_where_it_is_a_step_too(rollout, scripted):
    """A step begins as a span when something begins in it; those with nothing in them are no spans."""
    model = scripted([AIMessage("a draft"), AIMessage("a check"), AIMessage("a text")])
    writer = (ChatPromptTemplate.from_template("Write on {topic}.") | model).with_config(run_name="writer")

    def check(draft: AIMessage) -> str:
        return model.invoke(f"Is it right? {draft.text}").text

    def shout(text: str) -> str:
        return text.upper()

    editor = (RunnableLambda(shout) | model | StrOutputParser()).with_config(run_name="editor")
    chain = ({"topic": RunnablePassthrough()} | writer | check | shout | editor).with_config(run_name="paper")
    with rollout() as recorded:
        assert chain.invoke("bees") == "a text"
    assert recorded.outline() == [
        "chain paper [paper]",
        "  chain writer [writer]",
        "    llm chat [writer]",
        "  chain check [check]",
        "    llm chat [check]",
        "  chain editor [editor]",
        "    llm chat [editor]",
    ]
    ends = [span.ended_at for span in recorded.spans]
    assert None not in ends


def test_a_graph_that_is_a_step_of_a_chain_is_a_graph(rollout, calculator):
    to_state = RunnableLambda(lambda text: {"messages": [("user", text)]})
    with rollout() as recorded:
        (to_state | calculator([AIMessage("5")])).invoke("2 + 3?")
    assert recorded.outline() == ["graph LangGraph [LangGraph]", "  node think [think]", "    llm chat [think]"]


def test_a_chain_with_a_name_is_an_agent_of_that_name(rollout):
    with rollout() as recorded:
        RunnableParallel(a=chain(), b=chain()).with_config(run_name="twice").invoke({"question": "Is it?"})
    assert recorded.outline() == ["chain twice [twice]", "  llm chat [twice]", "  llm chat [twice]"]


def test_a_chain_in_a_node_belongs_to_the_node(rollout):
    graph = StateGraph(MessagesState)
    judge = chain().with_config(run_name="judge")
    graph.add_node("review", lambda state: {"messages": [judge.invoke({"question": state["messages"][-1].content})]})
    graph.add_edge(START, "review")
    with rollout() as recorded:
        graph.compile().invoke({"messages": [("user", "Is it?")]})
    assert recorded.outline() == [
        "graph LangGraph [LangGraph]",
        "  node review [review]",
        "    chain judge [review]",
        "      llm chat [review]",
    ]


def test_a_chain_cut_off_from_its_callbacks_still_belongs_to_its_node(rollout):
    graph = StateGraph(MessagesState)
    judge = chain().with_config(run_name="judge")
    cut_off = {"callbacks": []}
    graph.add_node("review", lambda state: {"messages": [judge.invoke({"question": "Is it?"}, cut_off)]})
    graph.add_edge(START, "review")
    with rollout() as recorded:
        graph.compile().invoke({"messages": [("user", "Is it?")]})
    assert recorded.outline()[2:] == ["    chain judge [review]", "      llm chat [review]"]


class Shelf(BaseRetriever):
    """Finds one book."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        if query == "broken":
            raise LookupError("the shelf is broken")
        return [Document("A book.", metadata={"shelf": 3})]


def test_a_retriever_makes_a_retrieval_span_with_query_and_documents(rollout):
    with rollout() as recorded:
        Shelf().invoke("books")
    found = recorded.only("retrieval", "Shelf")
    assert found.attributes == {
        semconv.RETRIEVAL_QUERY: "books",
        semconv.RETRIEVAL_DOCUMENTS: [{"page_content": "A book.", "metadata": {"shelf": 3}}],
    }


def test_a_retriever_that_raises_is_a_failed_retrieval(rollout):
    with rollout() as recorded, pytest.raises(LookupError):
        Shelf().invoke("broken")
    failure = recorded.only("retrieval").failure
    assert (failure.type, failure.exception) == ("retrieval_error", "builtins.LookupError")


def test_what_is_said_by_hand_lies_between_the_frameworks_spans(rollout):
    model = FakeListChatModel(responses=["yes"])

    def plan(state: MessagesState) -> dict[str, Any]:
        annotate("before")
        with span("sketch"):
            answer = model.invoke(state["messages"])
        annotate("after")
        return {"messages": [answer]}

    graph = StateGraph(MessagesState)
    graph.add_node("plan", plan)
    graph.add_edge(START, "plan")
    with rollout() as recorded, span("whole"):
        graph.compile().invoke({"messages": [("user", "Is it?")]})
    assert recorded.outline() == [
        "agent whole [None]",
        "  graph LangGraph [LangGraph]",
        "    node plan [plan]",
        "      annotation before [plan]",
        "      agent sketch [plan]",
        "        llm chat [plan]",
        "      annotation after [plan]",
    ]


def test_what_outlives_a_span_made_by_hand_hangs_under_the_node(rollout):
    async def plan(state: MessagesState) -> dict[str, Any]:
        with span("sketch"):
            later = asyncio.create_task(FakeListChatModel(responses=["yes"]).ainvoke("Is it?"))
        return {"messages": [await later]}

    graph = StateGraph(MessagesState)
    graph.add_node("plan", plan)
    graph.add_edge(START, "plan")
    with rollout() as recorded:
        asyncio.run(graph.compile().ainvoke({"messages": []}))
    assert recorded.outline()[2:] == ["    agent sketch [plan]", "    llm chat [plan]"]


def test_a_stream_goes_on_where_it_began(rollout, calculator, calls, ask):
    with rollout() as recorded, span("outer"):
        with span("inner"):
            stream = calculator([calls("add", a=2, b=3), AIMessage("5")]).stream(ask)
            next(stream)
        list(stream)
    assert recorded.outline() == [
        "agent outer [None]",
        "  agent inner [None]",
        "    graph LangGraph [LangGraph]",
        "      node think [think]",
        "        llm chat [think]",
        "      node tools [tools]",
        "        tool add [tools]",
        "      node think [think]",
        "        llm chat [think]",
    ]


def test_a_graph_run_by_another_framework_hangs_where_that_says(rollout, calculator, ask):
    with rollout() as recorded:
        team = recorded.recorder.start("agent", "team", agent="team")

        def locator(recorder: Any) -> Any:
            return team

        add_locator(locator)
        try:
            calculator([AIMessage("5")]).invoke(ask)
        finally:
            remove_locator(locator)
            recorded.recorder.end(team)
    assert recorded.outline()[:2] == ["agent team [team]", "  graph LangGraph [LangGraph]"]
