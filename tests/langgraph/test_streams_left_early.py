"""Streams that their reader leaves: what was said so far is kept, and nothing has failed."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from recorded import Recorded
from stub_answers import text

from agentlightning.records import Policy

pytestmark = pytest.mark.usefixtures("model_layer")

ANSWER = "One, two, three, four, five."
OUTLINE = [
    "graph office [office]",
    "  node desk [desk]",
    "    agent teller [teller]",
    "      node model [teller]",
    "        llm chat tiny [teller]",
]


@pytest.fixture
def office(stub) -> Any:
    """An agent that streams, in a graph."""
    stub.reply(text(ANSWER))
    teller = create_agent(ChatOpenAI(model="own", base_url="http://127.0.0.1:9/v1", api_key="sk-own"), name="teller")
    graph = StateGraph(MessagesState)
    graph.add_node("desk", teller)
    graph.add_edge(START, "desk")
    return graph.compile(name="office")


@pytest.fixture
def policy(stub) -> Policy:
    return Policy(name="policy", model="tiny", base_url=stub.base_url)


def check(recorded: Recorded) -> None:
    """All of it is there, without a failure, and the tokens are those of what was read."""
    assert recorded.outline() == OUTLINE
    said = recorded.only("llm").generation
    assert (said.provenance, said.policy) == ("exact", "policy")
    assert said.response["content"]
    assert ANSWER.startswith(said.response["content"])
    assert len(said.response_ids) == len(said.response["content"])


LEAVING = ["and it returns", "and goes on", "and closes it"]


async def leave(office: Any, ask: Any, how: str) -> None:
    stream = office.astream(ask, stream_mode="messages", subgraphs=True)
    if how == "and closes it":
        async with aclosing(stream):
            await anext(stream)
        return
    async for _ in stream:
        break
    if how == "and goes on":
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", LEAVING)
async def test_tokens_are_read_and_left(rollout, office, policy, ask, how):
    with rollout(resources=[policy]) as recorded:
        await leave(office, ask, how)
    check(recorded)


@pytest.mark.parametrize("how", LEAVING)
def test_the_event_loop_ends_with_the_agent(rollout, office, policy, ask, how):
    """`asyncio.run` cancels what is left, the closing of the stream with it."""
    with rollout(resources=[policy]) as recorded:
        asyncio.run(leave(office, ask, how))
    check(recorded)


@pytest.mark.parametrize("mode", ["updates", "values", "messages"])
def test_states_are_read_and_left(rollout, office, policy, ask, mode):
    with rollout(resources=[policy]) as recorded:
        for _ in office.stream(ask, stream_mode=mode, subgraphs=True):
            break
    assert [span.failure for span in recorded.spans] == [None] * len(recorded.spans)


async def test_what_is_cancelled_was_not_left(rollout, office, policy, stub, ask):
    hold = threading.Event()
    stub.clear()
    stub.reply(text(ANSWER, hold=hold))
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in office.astream(ask, stream_mode="messages", subgraphs=True):
            begun.set()

    with rollout(resources=[policy]) as recorded:
        task = asyncio.create_task(read())
        try:
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        finally:
            hold.set()
    assert [span.failure.type for span in recorded.spans if span.failure] == ["cancelled"] * len(OUTLINE)
