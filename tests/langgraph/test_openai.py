"""LangGraph agents whose models go through the ``openai`` client: the model layer's spans, in their place."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import openai
import pytest
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send
from stub_answers import Received, error, text, tool_call
from stub_server import StubServer

from agentlightning.records import Policy

pytestmark = pytest.mark.usefixtures("model_layer")


def model_at(stub: StubServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="stub-model", base_url=stub.base_url, api_key="sk-test", max_retries=0, **options)


def agent_at(stub: StubServer, add: Any, **options: Any) -> Any:
    return create_agent(model_at(stub, **options), [add], system_prompt="Be exact.", name="accountant")


OUTLINE = [
    "agent accountant [accountant]",
    "  node model [accountant]",
    "    llm chat stub-model [accountant]",
    "  node tools [accountant]",
    "    tool add [accountant]",
    "  node model [accountant]",
    "    llm chat stub-model [accountant]",
]


def answers(stub: StubServer) -> None:
    stub.reply(tool_call("add", a=2, b=3), text("5"))


def test_each_call_is_one_span_under_its_node(rollout, stub, add, ask):
    answers(stub)
    with rollout() as recorded:
        agent_at(stub, add).invoke(ask)
    assert recorded.outline() == OUTLINE
    assert len(stub.requests) == 2
    first, last = recorded.all("llm")
    assert first.generation.messages[0] == {"role": "system", "content": "Be exact."}
    assert first.generation.tools[0]["function"]["name"] == "add"
    assert last.generation.response["content"] == "5"
    assert last.generation.usage.output_tokens == 1


async def test_asynchronous_calls_are_one_span_each(rollout, stub, add, adapter):
    answers(stub)
    with rollout() as recorded:
        output = await adapter.run(agent_at(stub, add), "2 + 3?")
    assert output["messages"][-1]["content"] == "5"
    assert recorded.outline() == OUTLINE


def test_streamed_calls_are_one_span_each(rollout, stub, add, ask):
    answers(stub)
    with rollout() as recorded:
        list(agent_at(stub, add, streaming=True).stream(ask, stream_mode="messages"))
    assert recorded.outline() == OUTLINE
    assert recorded.all("llm")[-1].generation.response["content"] == "5"


async def test_asynchronously_streamed_calls_are_one_span_each(rollout, stub, add, ask):
    answers(stub)
    with rollout() as recorded:
        async for _ in agent_at(stub, add).astream(ask, stream_mode="messages"):
            pass
    assert recorded.outline() == OUTLINE


def test_calls_of_the_responses_api_are_one_span_each(rollout, stub, add, ask):
    answers(stub)
    with rollout() as recorded:
        agent_at(stub, add, use_responses_api=True).invoke(ask)
    assert [line.strip().split()[0] for line in recorded.outline()] == [line.strip().split()[0] for line in OUTLINE]


def test_a_call_that_fails_is_one_failed_span_with_the_model_layers_failure(rollout, stub, add, ask):
    stub.reply(error(429, "slow down"))
    with rollout() as recorded, pytest.raises(openai.RateLimitError):
        agent_at(stub, add).invoke(ask)
    call = recorded.only("llm")
    assert (call.failure.type, call.failure.fault) == ("rate_limited", "infrastructure")
    assert recorded.only("agent", "model").failure.type == "agent_error"


def test_the_client_used_by_hand_in_a_node_hangs_under_the_node(rollout, stub, ask):
    client = openai.OpenAI(base_url=stub.base_url, api_key="sk-test")

    def work(state: MessagesState) -> dict[str, Any]:
        said = client.chat.completions.create(model="stub-model", messages=[{"role": "user", "content": "Hi"}])
        return {"messages": [("assistant", said.choices[0].message.content)]}

    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    with rollout() as recorded:
        graph.compile().invoke(ask)
    assert recorded.outline()[1:] == ["  node work [work]", "    llm chat stub-model [work]"]


def test_only_the_calls_of_the_trained_agent_go_to_its_policy(adapter, rollout, add, ask):
    with StubServer() as own, StubServer() as trained:
        own.reply(text("own"))
        trained.reply(text("trained"))
        graph = StateGraph(MessagesState)
        graph.add_node("draft", lambda state: {"messages": [model_at(own).invoke(state["messages"])]})
        graph.add_node("check", create_agent(model_at(own), name="checker"))
        graph.add_edge(START, "draft")
        graph.add_edge("draft", "check")
        policy = Policy(name="policy", model="policy-1", base_url=trained.base_url, agents=("checker",))
        with rollout(resources=[policy]):
            output = graph.compile().invoke(ask)
        assert [message.content for message in output["messages"][1:]] == ["own", "trained"]
        assert (len(own.requests), len(trained.requests)) == (1, 1)


async def test_many_rollouts_at_once_keep_their_calls_apart(rollout, stub):
    def echo(request: Received) -> Any:
        return text(request.json["messages"][-1]["content"])

    stub.reply(echo)
    model = model_at(stub)
    graph = StateGraph(MessagesState)

    async def work(state: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"][-1:])]}

    def fan(state: MessagesState) -> list[Send]:
        asked = state["messages"][-1].content
        return [Send("work", {"messages": [("user", f"{asked}/{branch}")]}) for branch in range(3)]

    graph.add_node("work", work)
    graph.add_conditional_edges(START, fan, ["work"])
    agent = graph.compile()

    async def run(number: int) -> Any:
        with rollout(f"rollout-{number}") as recorded:
            await agent.ainvoke({"messages": [("user", f"rollout-{number}")]})
        return recorded

    everything = await asyncio.gather(*map(run, range(64)))
    for number, recorded in enumerate(everything):
        by_id = {span.id: span for span in recorded.spans}
        assert Counter(span.kind for span in recorded.spans) == {"agent": 4, "llm": 3}
        assert {span.rollout_id for span in recorded.spans} == {f"rollout-{number}"}
        said = sorted(span.generation.response["content"] for span in recorded.all("llm"))
        assert said == [f"rollout-{number}/{branch}" for branch in range(3)]
        assert all(by_id[span.parent_id].name == "work" for span in recorded.all("llm"))
        assert len({span.parent_id for span in recorded.all("llm")}) == 3
