"""Streams that their reader leaves: what was said so far is kept, and nothing has failed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from stub_answers import text

from agentlightning.records import Policy

ANSWER = "One, two, three, four, five."
LEAVING = ["and it returns", "and goes on", "and closes it"]


@pytest.fixture(autouse=True)
async def nothing_goes_on() -> AsyncIterator[None]:
    """A team whose stream is left goes on by itself: not beyond its test."""
    others = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - others - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture
def policy(endpoint) -> Policy:
    return Policy(name="policy", model="tiny", base_url=endpoint.base_url)


@pytest.fixture
def held(endpoint) -> Iterator[None]:
    """The model has begun to answer, and does not go on. (AutoGen's own closing waits for it.)"""
    hold = threading.Event()
    endpoint.reply(text(ANSWER, hold=hold))
    yield
    hold.set()


async def leave(assistant, how: str, *, words: bool = True, within: bool = True) -> None:
    """Reads until the model has said something (or something happens at all), and leaves."""
    teller = assistant("teller", model_client_stream=True)
    runs = RoundRobinGroupChat([teller], name="team", max_turns=1) if within else teller
    stream = runs.run_stream(task="?")
    async for event in stream:
        if isinstance(event, ModelClientStreamingChunkEvent) or not words:
            break
    if how == "and closes it":
        await stream.aclose()
    elif how == "and goes on":
        del stream
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("how", LEAVING)
async def test_words_are_read_and_left(rollout, assistant, endpoint, policy, how, within):
    endpoint.reply(text(ANSWER))
    with rollout(resources=[policy]) as recorded:
        await leave(assistant, how, within=within)
    team = ["team team [team]", "  agent teller [teller]", "    llm chat tiny [teller]"]
    alone = ["agent teller [teller]", "  llm chat tiny [teller]"]
    assert recorded.outline() == (team if within else alone)
    said = recorded.only("llm").generation
    assert (said.provenance, said.policy) == ("exact", "policy")
    assert ANSWER.startswith(said.response["content"])
    assert said.response["content"]


@pytest.mark.parametrize("how", LEAVING[:2])
async def test_a_team_is_left_before_it_has_said_anything(rollout, assistant, policy, held, how):
    with rollout(resources=[policy]) as recorded:
        await leave(assistant, how, words=False)
    assert [span.failure for span in recorded.all("agent")] == [None] * len(recorded.all("agent"))
