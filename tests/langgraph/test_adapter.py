"""Which agents the adapter takes, how it hands them a task, what it gives back, and what it costs to load."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, TypedDict

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, RemoveMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt
from pydantic import BaseModel

from agentlightning import adapter as core
from agentlightning.errors import AdapterError
from agentlightning.recording import current
from agentlightning_langgraph.serialize import plain


class Question(TypedDict):
    question: str
    answer: str


def question_graph() -> Any:
    graph = StateGraph(Question)
    graph.add_node("answer", lambda state: {"answer": state["question"].upper()})
    graph.add_edge(START, "answer")
    return graph.compile()


def test_it_takes_graphs_and_runnables_and_nothing_else(adapter, calculator):
    assert adapter.accepts(calculator([]))
    assert adapter.accepts(RunnableLambda(str.upper))
    assert not adapter.accepts(str.upper)
    assert not adapter.accepts("agent")


async def test_a_string_is_a_user_message_and_messages_come_back_as_openai_writes_them(adapter, calculator, calls):
    output = await adapter.run(calculator([calls("add", a=2, b=3), AIMessage("5")]), "2 + 3?")
    call = {"type": "function", "id": "call_1", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
    assert output == {
        "messages": [
            {"role": "user", "content": "2 + 3?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "5", "name": "add", "tool_call_id": "call_1"},
            {"role": "assistant", "content": "5"},
        ]
    }


async def test_a_list_is_the_messages(adapter, calculator):
    output = await adapter.run(calculator([AIMessage("5")]), [{"role": "user", "content": "2 + 3?"}])
    assert output["messages"][0] == {"role": "user", "content": "2 + 3?"}


async def test_a_mapping_is_the_graphs_input(adapter):
    assert await adapter.run(question_graph(), {"question": "so?"}) == {"question": "so?", "answer": "SO?"}


class WithLock(MessagesState):
    lock: threading.Lock


async def test_a_state_that_has_no_schema_takes_a_string_all_the_same(adapter):
    graph = StateGraph(WithLock)
    graph.add_node("answer", lambda state: {"messages": [("assistant", "ok")]})
    graph.add_edge(START, "answer")
    output = await adapter.run(graph.compile(), "so?")
    assert [message["content"] for message in output["messages"]] == ["so?", "ok"]


class Pydantic(BaseModel):
    question: str
    answer: str = ""


async def test_a_pydantic_state_is_a_mapping_too(adapter):
    graph = StateGraph(Pydantic)
    graph.add_node("answer", lambda state: {"answer": state.question.upper()})
    graph.add_edge(START, "answer")
    agent = graph.compile()
    assert await adapter.run(agent, {"question": "so?"}) == {"question": "so?", "answer": "SO?"}
    with pytest.raises(AdapterError, match="keys question, answer"):
        await adapter.run(agent, "so?")


async def test_an_input_that_does_not_fit_is_an_error_that_says_what_would(adapter):
    with pytest.raises(AdapterError, match=r"keys question, answer.*input is a str.*\{'question': …\}"):
        await adapter.run(question_graph(), "so?")


async def test_a_graph_that_was_not_compiled_is_an_error_that_says_so(adapter):
    with pytest.raises(AdapterError, match=r"\.compile\(\)"):
        await adapter.run(StateGraph(MessagesState), "Hello?")


async def test_other_runnables_take_what_they_are_given(adapter):
    prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
    chain = prompt | FakeListChatModel(responses=["yes", "yes"])
    assert await adapter.run(chain, {"question": "so?"}) == {"role": "assistant", "content": "yes"}
    assert await adapter.run(RunnableLambda(str.upper), "so?") == "SO?"


async def test_a_functional_graph_takes_what_it_is_given(adapter):
    @entrypoint()
    def double(number: int) -> int:
        return number * 2

    assert await adapter.run(double, 4) == 8


class Point(BaseModel):
    x: int


@dataclass
class Plan:
    steps: tuple[str, ...]


class Mood(Enum):
    GOOD = "good"


class Size(StrEnum):
    SMALL = "small"


async def test_the_output_is_plain_data(adapter):
    odd = object()
    output = {
        "mood": Mood.GOOD,
        "size": Size.SMALL,
        "last": RemoveMessage(id="1"),
        "point": Point(x=1),
        "plan": Plan(("a", "b")),
        3: {4},
        "message": AIMessage("hi"),
        "odd": odd,
    }
    assert type(plain(Size.SMALL)) is str
    assert await adapter.run(RunnableLambda(lambda _: output), "") == {
        "mood": "good",
        "size": "small",
        "last": {"role": "remove", "content": ""},
        "point": {"x": 1},
        "plan": {"steps": ["a", "b"]},
        "3": [4],
        "message": {"role": "assistant", "content": "hi"},
        "odd": odd,
    }
    assert type(plain(Size.SMALL)) is str


async def test_an_interrupted_graph_gives_its_question(adapter):
    graph = StateGraph(Question)
    graph.add_node("ask", lambda state: {"answer": interrupt("Go on?")})
    graph.add_edge(START, "ask")
    output = await adapter.run(graph.compile(checkpointer=InMemorySaver()), {"question": "so?"})
    assert output["__interrupt__"][0]["value"] == "Go on?"


async def test_each_rollout_is_a_thread_of_its_own_for_the_checkpointer(adapter, rollout):
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [("assistant", current().rollout_id)]})
    graph.add_edge(START, "answer")
    agent = graph.compile(checkpointer=InMemorySaver())

    async def run(number: int) -> Any:
        with rollout(f"rollout-{number}"):
            return await adapter.run(agent, "who?")

    outputs = await asyncio.gather(*map(run, range(4)))
    assert [[message["content"] for message in output["messages"]] for output in outputs] == [
        ["who?", f"rollout-{number}"] for number in range(4)
    ]


async def test_what_an_agent_raises_passes_through(adapter, rollout, calculator, calls):
    with rollout(), pytest.raises(ValueError, match="only positive"):
        await adapter.run(calculator([calls("add", a=-1, b=1)], handle_tool_errors=False), "?")


def test_a_version_outside_of_the_range_is_left_to_the_model_layer_with_one_warning(
    rollout, calculator, calls, ask, adapter, monkeypatch, caplog
):
    adapter.uninstall()
    core.supports.cache_clear()
    monkeypatch.setattr(core, "version", lambda name: "2.0.0")
    adapter.install()
    adapter.install()
    with rollout() as recorded:
        calculator([AIMessage("5")]).invoke(ask)
    core.supports.cache_clear()
    assert recorded.spans == []
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "langchain-core 2.0.0 is outside of the supported versions, 1.0 to below 2" in warning
