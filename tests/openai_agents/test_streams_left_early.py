"""Streams that their reader leaves: what was said so far is kept, and nothing has failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from agents import Agent, Runner
from stub_answers import text

from agentlightning.records import Policy

ANSWER = "One, two, three, four, five."


@pytest.fixture(autouse=True)
async def nothing_goes_on(adapter) -> AsyncIterator[None]:
    """A run whose stream is left goes on by itself: not beyond its test."""
    others = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - others - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def read(agent: Agent, until: str, how: str = "and returns") -> None:
    """Reads events until the first of a type."""
    events = Runner.run_streamed(agent, "?").stream_events()
    async for event in events:
        if getattr(event.data, "type", None) == until if event.type == "raw_response_event" else event.type == until:
            break
    if how == "and closes":
        async with aclosing(events):
            pass


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("how", ["and returns", "and closes"])
async def test_an_answer_is_read_and_left(make, stub, rollout, chat, how):
    stub.reply(text(ANSWER))
    with rollout(resources=[Policy(name="policy", model="tiny", base_url=stub.base_url)]) as ran:
        await read(make("teller", chat=chat), "response.output_text.delta", how)
    assert ran.outline() == [
        "workflow Agent workflow [Agent workflow]",
        "  agent teller [teller]",
        "    turn turn 1 [teller]",
        "      llm chat tiny [teller]",
    ]
    said = ran.only("llm").generation
    assert said.policy == "policy"
    assert said.response["content"]
    assert ANSWER.startswith(said.response["content"])


async def test_the_agent_is_known_and_the_stream_left(make, stub, rollout):
    stub.reply(text(ANSWER))
    with rollout() as ran:
        await read(make("teller"), "agent_updated_stream_event")
    assert [span.failure for span in ran.spans] == [None] * len(ran.spans)


async def test_a_tool_is_called_and_the_stream_left(make, add, stub, calls, rollout):
    stub.reply(calls(("add", '{"a": 2, "b": 3}')), text(ANSWER))
    with rollout() as ran:
        await read(make("teller", tools=[add]), "response.output_item.done")
    assert ran.all("llm")[0].generation.response["tool_calls"][0]["id"] == "call_0"
    assert [span.failure for span in ran.all("agent")] == [None] * len(ran.all("agent"))
