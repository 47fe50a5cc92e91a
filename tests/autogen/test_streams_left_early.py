"""Streams that their reader leaves: what was said so far is kept, and the call has not failed."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from autogen_agentchat.messages import ModelClientStreamingChunkEvent
from autogen_agentchat.teams import RoundRobinGroupChat
from stub_answers import text

from agentlightning.records import Policy

ANSWER = "One, two, three, four, five."


@pytest.mark.parametrize("in_a_team", [False, True], ids=["agent", "team"])
async def test_a_run_that_is_left_keeps_what_was_read(rollout, assistant, endpoint, caplog, in_a_team) -> None:
    endpoint.reply(text(ANSWER))
    agent = assistant("solver", model_client_stream=True)
    runner = RoundRobinGroupChat([agent], max_turns=1) if in_a_team else agent
    policy = Policy(name="policy", model="tiny", base_url=endpoint.base_url)
    with caplog.at_level(logging.WARNING), rollout(resources=[policy]) as recorded:
        async for event in runner.run_stream(task="Count."):
            if isinstance(event, ModelClientStreamingChunkEvent):
                break
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    said = recorded.only("llm").generation
    assert recorded.only("llm").failure is None
    assert ANSWER.startswith(said.response["content"])
    assert said.response["content"]
    assert (said.provenance, len(said.response_ids)) == ("exact", len(said.response["content"]))
    assert "RuntimeError" not in caplog.text
