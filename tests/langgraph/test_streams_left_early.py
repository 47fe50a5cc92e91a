"""Streams that their reader leaves: what was said so far is kept, and nothing has failed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
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
    """An agent that streams, in a graph. LangChain keeps a client for each address, and so for the event loop."""
    stub.reply(text(ANSWER))
    teller = create_agent(ChatOpenAI(model="own", base_url=stub.base_url, api_key="sk-own"), name="teller")
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


async def leave(office: Any, ask: Any, how: str, *, words: bool = True) -> None:
    """Reads until the model has said something (or has begun to), and leaves."""
    stream = office.astream(ask, stream_mode="messages", subgraphs=True)
    async for _, (chunk, _) in stream:
        if chunk.content or not words:
            break
    if how == "and closes it":
        await stream.aclose()
    elif how == "and goes on":
        del stream
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


@pytest.fixture
def held(stub) -> Iterator[None]:
    """The model has begun to answer, and does not go on."""
    hold = threading.Event()
    stub.clear()
    stub.reply(text(ANSWER, hold=hold))
    yield
    hold.set()


@pytest.mark.parametrize("how", LEAVING)
async def test_the_next_word_is_waited_for_when_the_stream_is_left(rollout, office, policy, ask, how, held):
    with rollout(resources=[policy]) as recorded:
        await leave(office, ask, how, words=False)
    assert recorded.outline() == OUTLINE
    assert recorded.only("llm").generation.response is not None


async def test_what_is_cancelled_was_not_left(rollout, office, policy, ask, held):
    begun = asyncio.Event()

    async def read() -> None:
        try:
            async for _ in office.astream(ask, stream_mode="messages", subgraphs=True):
                begun.set()
        finally:
            begun.set()

    with rollout(resources=[policy]) as recorded:
        task = asyncio.create_task(read())
        await asyncio.wait_for(begun.wait(), 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [span.failure.type for span in recorded.spans if span.failure] == ["cancelled"] * len(OUTLINE)
