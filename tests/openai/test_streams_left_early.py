"""Streams that the agent leaves before their end: what it had read is the answer, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time

import pytest
from stub_answers import Answer, Choice, stream, text

from agentlightning.records import Failure

MESSAGES = [{"role": "user", "content": "Hi"}]
EXACT = {"logprobs": True, "extra_body": {"return_token_ids": True}}


def said(span) -> tuple[object, object, object]:
    """The text, its token ids as text, and the failure of a call."""
    ids = span.generation.response_ids
    written = None if ids is None else "".join(chr(id - 1000) for id in ids)
    return span.generation.response["content"], written, span.failure


def read_some(client, **options):
    """An agent that reads a stream until the first text, and returns it."""
    for chunk in client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **EXACT, **options):
        if chunk.choices[0].delta.content:
            return chunk.choices[0].delta.content
    return None


async def read_some_async(client, **options):
    create = client.chat.completions.create
    async for chunk in await create(model="m", messages=MESSAGES, stream=True, **EXACT, **options):
        if chunk.choices[0].delta.content:
            return chunk.choices[0].delta.content
    return None


def test_the_answer_is_what_was_read(rollout, client) -> None:
    with rollout() as recorder:
        read_some(client)
    recorder.close()
    assert said(rollout.span) == ("He", "He", None)
    assert rollout.span.generation.finish_reason is None
    assert rollout.span.generation.provenance == "exact"


async def test_the_answer_of_an_asynchronous_stream_is_what_was_read(rollout, async_client) -> None:
    with rollout() as recorder:
        await read_some_async(async_client)
    recorder.close()
    assert said(rollout.span) == ("He", "He", None)


def test_an_exception_in_the_agents_loop_is_not_the_calls(rollout, client) -> None:
    def agent() -> None:
        for chunk in client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **EXACT):
            if chunk.choices[0].delta.content:
                raise ValueError("a bug of the agent")

    with rollout() as recorder, pytest.raises(ValueError, match="a bug"):
        agent()
    recorder.close(Failure(type="agent_error", message="a bug of the agent"))
    assert said(rollout.span) == ("He", "He", None)


def test_a_stream_that_the_agent_holds_on_to_is_recorded_when_the_rollout_ends(rollout, client) -> None:
    with rollout() as recorder:
        held = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **EXACT)
        next(held), next(held)
        recorder.close()
        assert said(rollout.span) == ("He", "He", None)
        assert len(list(held)) > 0
    assert len(rollout.spans) == 1


def test_a_stream_that_was_never_read_says_nothing(rollout, client) -> None:
    with rollout() as recorder:
        held = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    recorder.close()
    assert (rollout.span.generation.response, rollout.span.failure) == (None, None)
    held.close()


def test_a_stream_is_recorded_when_it_is_closed(rollout, client) -> None:
    with rollout():
        opened = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **EXACT)
        next(opened), next(opened)
        opened.close()
        assert len(rollout.spans) == 1
    assert said(rollout.span) == ("He", "He", None)
    assert rollout.span.generation.finish_reason is None


async def test_an_asynchronous_stream_is_recorded_when_it_is_closed(rollout, async_client) -> None:
    with rollout():
        opened = await async_client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        await anext(opened), await anext(opened)
        await opened.close()
        assert rollout.span.generation.response["content"] == "He"


def test_a_stream_is_recorded_when_it_is_collected(rollout, client) -> None:
    with rollout():
        dropped = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        next(dropped), next(dropped)
        del dropped
        gc.collect()
    assert rollout.span.generation.response["content"] == "He"


def test_a_stream_collected_in_another_rollout_belongs_to_its_own(rollout, client) -> None:
    with rollout() as first:
        dropped = client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2)
        next(dropped), next(dropped)
    with rollout():
        del dropped
        gc.collect()
    assert {span.rollout_id for span in rollout.spans} == {first.rollout_id}


def test_a_helpers_stream_is_recorded(rollout, client) -> None:
    with rollout(), client.chat.completions.stream(model="m", messages=MESSAGES, **EXACT) as opened:
        for event in opened:
            if event.type == "content.delta" and event.delta:
                break
    assert said(rollout.span) == ("He", "He", None)


async def test_an_asynchronous_helpers_stream_is_recorded(rollout, async_client) -> None:
    with rollout():
        async with async_client.chat.completions.stream(model="m", messages=MESSAGES, **EXACT) as opened:
            async for event in opened:
                if event.type == "content.delta" and event.delta:
                    break
    assert said(rollout.span) == ("He", "He", None)


def test_a_body_read_in_part_is_recorded(rollout, stub, client) -> None:
    hold = threading.Event()
    stub.reply(Answer([Choice("Hello.")], hold=hold))
    create = client.chat.completions.with_streaming_response.create
    with rollout(), create(model="m", messages=MESSAGES, stream=True, **EXACT) as response:
        for line in response.iter_lines():
            hold.set()
            if '"content": "He"' in line:
                break
    content, ids, failure = said(rollout.span)
    assert content.startswith("He")
    assert (ids, failure) == (content, None)


async def test_an_asynchronous_body_read_in_part_is_recorded(rollout, stub, async_client) -> None:
    create = async_client.chat.completions.with_streaming_response.create
    with rollout():
        async with create(model="m", messages=MESSAGES, stream=True, **EXACT) as response:
            async for line in response.iter_lines():
                if '"content": "He"' in line:
                    break
    content, ids, failure = said(rollout.span)
    assert content.startswith("He")
    assert (ids, failure) == (content, None)


def test_a_responses_stream_is_recorded(rollout, client) -> None:
    with rollout() as recorder:
        for event in client.responses.create(model="m", input="Hi", stream=True):
            if event.type == "response.output_text.delta":
                break
    recorder.close()
    assert rollout.span.generation.response == {"role": "assistant", "content": "He"}
    assert (rollout.span.generation.finish_reason, rollout.span.failure) == (None, None)


def test_a_legacy_completions_stream_is_recorded(rollout, stub, client) -> None:
    def chunk(text: str, *ids: int) -> dict[str, object]:
        choice = {"index": 0, "text": text, "token_ids": ids, "finish_reason": None}
        choice["logprobs"] = {"token_logprobs": [-1.0] * len(ids)}
        return {
            "id": "c",
            "object": "text_completion",
            "logprobs_mode": "tempered",
            "choices": [{**choice, "prompt_token_ids": [1]}],
        }

    stub.reply(stream(chunk("He", 1072, 1101), chunk("llo.", 1108)))
    with rollout() as recorder:
        for _ in client.completions.create(model="m", prompt="Hi", stream=True):
            break
    recorder.close()
    assert said(rollout.span) == ("He", "He", None)


def test_a_call_ended_when_its_last_chunk_came(rollout, client) -> None:
    """Rewards that are given later in the rollout belong to it."""
    with rollout() as recorder:
        held = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        next(held)
        left_at = time.time()
        client.chat.completions.create(model="m", messages=MESSAGES)
    recorder.close()
    first, second = sorted(rollout.spans, key=lambda span: span.index)
    assert first.ended_at <= left_at <= second.ended_at


@pytest.mark.parametrize("failed", [False, True], ids=["the agent returned", "the rollout failed"])
async def test_a_stream_still_being_read_is_cut_off_only_where_the_rollout_failed(
    rollout, stub, async_client, failed
) -> None:
    """A framework may go on reading in the background when the agent has returned."""
    hold, begun = threading.Event(), asyncio.Event()
    stub.reply(Answer([Choice("Hello.")], hold=hold))

    async def read() -> None:
        async for _ in await async_client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            begun.set()

    with rollout() as recorder:
        reading = asyncio.create_task(read())
        await begun.wait()
        await asyncio.sleep(0)
        recorder.close(Failure(type="timeout", message="too long") if failed else None)
    hold.set()
    await reading
    assert rollout.span.generation.response["content"] is None
    assert (rollout.span.failure.type if rollout.span.failure else None) == ("cancelled" if failed else None)


def test_each_choice_is_recorded(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("aa", token_ids=[1]), Choice("bb", token_ids=[2])]))
    with rollout() as recorder:
        for chunk in client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2, **EXACT):
            if chunk.choices[0].delta.content == "bb":
                break
    recorder.close()
    assert {(span.generation.response["content"], *span.generation.response_ids) for span in rollout.spans} == {
        ("aa", 1),
        ("bb", 2),
    }


async def test_twenty_streams_are_left_in_silence(rollout, stub, async_client, caplog, monkeypatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    stub.reply(*(text("Hello you there. " * 20) for _ in range(20)))
    with caplog.at_level(logging.WARNING):
        with rollout() as recorder:
            await asyncio.gather(*(read_some_async(async_client) for _ in range(20)))
        recorder.close()
        for _ in range(10):
            gc.collect()
            await asyncio.sleep(0.01)
        await async_client.close()
    assert [said(span) for span in rollout.spans] == [("He", "He", None)] * 20
    assert (caplog.text, unraisable) == ("", [])


def test_a_stream_that_is_left_is_closed_where_it_is_let_go(rollout, client) -> None:
    """Not by the collector of cycles, which may come while the connection pool holds the lock that closing takes."""
    gc.disable()
    try:
        with rollout():
            left = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            response = left.response
            next(left)
            assert not response.is_closed
            del left
            assert response.is_closed
    finally:
        gc.enable()
