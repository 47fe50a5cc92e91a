"""What the tests of the LangGraph adapter share: the adapter installed, a way to record, and agents with
scripted models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from recorded import installed, record
from stub_server import StubServer

from agentlightning_langgraph.adapter import LangGraphAdapter
from agentlightning_openai.adapter import OpenAIAdapter


class ScriptedModel(GenericFakeChatModel):
    """A chat model that says what it was told to, and takes tools."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


@pytest.fixture
def adapter() -> Iterator[LangGraphAdapter]:
    adapter = LangGraphAdapter()
    with installed(adapter):
        yield adapter


@pytest.fixture
def rollout(adapter: LangGraphAdapter) -> Callable[..., Any]:
    """``with rollout() as recorded:`` records the block."""
    return record


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def model_layer() -> Iterator[None]:
    with installed(OpenAIAdapter()):
        yield


def calls(name: str, id: str = "call_1", /, **arguments: Any) -> AIMessage:
    """A message that calls a tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": id}])


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    if a < 0:
        raise ValueError("only positive numbers")
    return a + b


def calculator(messages: list[AIMessage], **tool_node: Any) -> Any:
    """A compiled graph of a model node and a tool node; the model says ``messages``, in order."""
    model = ScriptedModel(messages=iter(messages))

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("tools", ToolNode([add], **tool_node))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return graph.compile()


@pytest.fixture(name="calculator")
def calculator_fixture() -> Callable[..., Any]:
    return calculator


@pytest.fixture(name="calls")
def calls_fixture() -> Callable[..., AIMessage]:
    return calls


@pytest.fixture(name="scripted")
def scripted_fixture() -> Callable[[list[AIMessage]], ScriptedModel]:
    return lambda messages: ScriptedModel(messages=iter(messages))


@pytest.fixture(name="add")
def add_fixture() -> Any:
    return add


ASK = {"messages": [("user", "What is 2 + 3?")]}


@pytest.fixture
def ask() -> dict[str, Any]:
    return ASK
