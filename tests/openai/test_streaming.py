"""Streams: the agent has its chunks, the span has the whole."""

from __future__ import annotations

import asyncio
import logging
import threading

import openai
import pytest
from stub_answers import Answer, Call, Choice, error, text, tool_call

from agentlightning import semconv

MESSAGES = [{"role": "user", "content": "Hi"}]
EXACT = {"logprobs": True, "extra_body": {"return_token_ids": True}}


def test_chunks_are_joined_into_one_message(rollout, stub, client) -> None:
    stub.reply(text("Hello you."))
    with rollout():
        chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == "Hello you."
    span = rollout.span
    assert span.generation.response == {"role": "assistant", "content": "Hello you."}
    assert span.generation.finish_reason == "stop"
    assert span.attributes[semconv.REQUEST_STREAM] is True
    assert span.attributes[semconv.RESPONSE_ID] == "chatcmpl-1"
    assert 0 <= span.attributes[semconv.TIME_TO_FIRST_TOKEN] <= span.ended_at - span.started_at + 1


async def test_asynchronous_chunks_are_joined(rollout, stub, async_client) -> None:
    stub.reply(text("Hello you."))
    with rollout():
        async for _ in await async_client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            pass
    assert rollout.span.generation.response == {"role": "assistant", "content": "Hello you."}


def test_tool_calls_reasoning_and_refusals_are_joined(rollout, stub, client) -> None:
    calls = [Call("add", '{"a": 1}', "call_a"), Call("sub", '{"b": 2}', "call_b")]
    stub.reply(Answer([Choice(None, calls, reasoning="let me see", refusal="no")]))
    with rollout():
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    said = rollout.span.generation
    assert said.finish_reason == "tool_calls"
    assert said.response == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "let me see",
        "refusal": "no",
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},
            {"id": "call_b", "type": "function", "function": {"name": "sub", "arguments": '{"b": 2}'}},
        ],
    }


def test_tokens_of_the_chunks_are_joined(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("abcd", token_ids=[1, 2, 3, 4], logprobs=[-1, -2, -3, -4])], policy_version=2))
    with rollout():
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, **EXACT))
    said = rollout.span.generation
    assert said.provenance == "exact"
    assert said.prompt_ids.tolist() == [1, 2, 3]
    assert said.response_ids.tolist() == [1, 2, 3, 4]
    assert said.logprobs.tolist() == [-1, -2, -3, -4]
    assert said.policy_version == 2


def test_choices_of_a_stream_are_kept_apart(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("aa", token_ids=[1]), Choice("bb", token_ids=[2])]))
    with rollout():
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, n=2, **EXACT))
    second, first = rollout.spans
    assert (first.generation.response["content"], first.generation.response_ids.tolist()) == ("aa", [1])
    assert (second.generation.response["content"], second.generation.response_ids.tolist()) == ("bb", [2])


def test_usage_is_recorded_where_the_agent_asks_for_it(rollout, stub, client) -> None:
    with rollout():
        chunks = list(
            client.chat.completions.create(
                model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].usage.completion_tokens == 6
    assert rollout.span.generation.usage.output_tokens == 6


def test_the_stream_helper_works_and_is_recorded(rollout, stub, client) -> None:
    stub.reply(tool_call("calculator", expression="1 + 1"))
    with rollout(), client.chat.completions.stream(model="m", messages=MESSAGES, **EXACT) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "calculator"
    assert rollout.span.generation.response["tool_calls"][0]["id"] == "call_1"
    assert rollout.span.generation.provenance == "exact"


async def test_the_asynchronous_stream_helper_works_and_is_recorded(rollout, stub, async_client) -> None:
    stub.reply(text("Hello you."))
    with rollout():
        async with async_client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
            final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello you."
    assert rollout.span.generation.response["content"] == "Hello you."


def test_a_raw_response_of_a_stream_is_recorded_when_it_is_read(rollout, stub, client) -> None:
    with rollout():
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, stream=True)
        assert rollout.spans == []
        said = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
    assert said == "Hello."
    assert rollout.span.generation.response["content"] == "Hello."


def test_a_stream_read_line_by_line_is_recorded(rollout, stub, client) -> None:
    create = client.chat.completions.with_streaming_response.create
    with rollout(), create(model="m", messages=MESSAGES, stream=True, **EXACT) as response:
        lines = list(response.iter_lines())
    assert "data: [DONE]" in lines
    assert rollout.span.generation.response["content"] == "Hello."
    assert rollout.span.generation.provenance == "exact"


def test_a_stream_that_the_engine_breaks_off_is_a_typed_failure(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("Hello.")], error_after=2))
    with rollout(), pytest.raises(openai.APIError):
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("engine_unavailable", "infrastructure")
    assert rollout.span.generation.response["content"] == "He"


def test_a_stream_whose_connection_drops_is_a_typed_failure(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("Hello.")], breaks_after=2))
    with rollout(), pytest.raises(Exception, match=r"peer closed|incomplete|Connection"):
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("engine_unavailable", "infrastructure")


def test_a_stream_that_stalls_is_a_typed_failure(rollout, stub, client) -> None:
    hold = threading.Event()
    stub.reply(Answer([Choice("Hello.")], hold=hold))
    with rollout(), pytest.raises(Exception, match=r"timed out|Timeout"):
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, timeout=0.1))
    hold.set()
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("timeout", "infrastructure")


async def test_a_cancelled_stream_ends_its_span(rollout, stub, async_client) -> None:
    hold = threading.Event()
    stub.reply(Answer([Choice("Hello.")], hold=hold))
    begun = asyncio.Event()

    async def read() -> None:
        async for _ in await async_client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
            begun.set()

    with rollout():
        reading = asyncio.create_task(read())
        await begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    hold.set()
    assert rollout.span.failure.type == "cancelled"


def test_an_error_before_the_stream_is_a_typed_failure(rollout, stub, client) -> None:
    stub.reply(error(429))
    with rollout(), pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert rollout.span.failure.type == "rate_limited"


def test_an_error_of_our_own_leaves_the_stream_whole(rollout, client, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agentlightning_openai.stream.CompletionJoiner.add", broken)
    with rollout(), caplog.at_level(logging.ERROR):
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello."
    assert "could not be recorded" in caplog.text
    assert len(rollout.spans) == 1
