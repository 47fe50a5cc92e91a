"""Calls that fail: retries, typed failures, cancellation, and errors of our own."""

from __future__ import annotations

import asyncio
import logging
import threading

import openai
import pytest
from stub_answers import Answer, Choice, Raw, error, text
from stub_server import StubServer

from agentlightning import semconv

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_client_retries_are_one_span_with_their_number(rollout, stub) -> None:
    stub.reply(error(429, retry_after_ms="1"), error(500, retry_after_ms="1"), text("at last"))
    client = openai.OpenAI(base_url=stub.base_url, api_key="k", max_retries=2)
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.attributes[semconv.RESEND_COUNT] == 2
    assert rollout.span.generation.response["content"] == "at last"
    assert rollout.span.failure is None


async def test_asynchronous_client_retries_are_counted(rollout, stub) -> None:
    stub.reply(error(429, retry_after_ms="1"), text("at last"))
    client = openai.AsyncOpenAI(base_url=stub.base_url, api_key="k", max_retries=1)
    with rollout():
        await client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.attributes[semconv.RESEND_COUNT] == 1


@pytest.mark.parametrize(
    ("reply", "type", "fault", "exception"),
    [
        (error(429, "slow down"), "rate_limited", "infrastructure", "openai.RateLimitError"),
        (error(500), "engine_unavailable", "infrastructure", "openai.InternalServerError"),
        (error(503), "engine_unavailable", "infrastructure", "openai.InternalServerError"),
        (error(400, "bad"), "bad_request", "agent", "openai.BadRequestError"),
        (error(422, "bad"), "bad_request", "agent", "openai.UnprocessableEntityError"),
        (error(400, "too long", "context_length_exceeded"), "context_too_long", "agent", "openai.BadRequestError"),
        (
            error(400, "This model's maximum context length is 2048 tokens."),
            "context_too_long",
            "agent",
            "openai.BadRequestError",
        ),
        (error(401), "authentication_failed", "infrastructure", "openai.AuthenticationError"),
        (error(404), "not_found", "infrastructure", "openai.NotFoundError"),
    ],
)
def test_an_error_of_the_endpoint_is_a_typed_failure(rollout, stub, client, reply, type, fault, exception) -> None:
    stub.reply(reply)
    with rollout() as recorder, pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    failure = rollout.span.failure
    assert (failure.type, failure.fault, failure.exception) == (type, fault, exception)
    assert rollout.span.attributes[semconv.ERROR_TYPE] == exception
    assert rollout.span.generation.messages == MESSAGES
    assert recorder.failures == [failure]


def test_a_timeout_is_the_infrastructures(rollout, stub, client) -> None:
    hold = threading.Event()
    stub.reply(Answer([Choice("late")], hold=hold))
    with rollout(), pytest.raises(openai.APITimeoutError):
        client.chat.completions.create(model="m", messages=MESSAGES, timeout=0.05)
    hold.set()
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("timeout", "infrastructure")


def test_an_endpoint_that_is_not_there_is_the_infrastructures(rollout) -> None:
    with StubServer() as gone:
        base_url = gone.base_url
    client = openai.OpenAI(base_url=base_url, api_key="k", max_retries=0)
    with rollout(), pytest.raises(openai.APIConnectionError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("engine_unavailable", "infrastructure")


async def test_a_cancelled_call_ends_its_span(rollout, stub, async_client) -> None:
    hold = threading.Event()
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(_: object) -> Answer:
        loop.call_soon_threadsafe(arrived.set)
        return Answer([Choice("late")], hold=hold)

    stub.reply(answer)
    with rollout():
        call = asyncio.create_task(async_client.chat.completions.create(model="m", messages=MESSAGES))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    hold.set()
    assert rollout.span.failure.type == "cancelled"


@pytest.mark.parametrize(
    "reply",
    [Raw(200, b"<html>", "text/html"), Raw(200, b"{}"), Raw(200, b'{"error": "x"}')],
    ids=["html", "empty object", "error object"],
)
def test_an_answer_that_is_none_is_the_infrastructures_failure(rollout, stub, client, reply) -> None:
    stub.reply(reply)
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert (rollout.span.failure.type, rollout.span.failure.fault) == ("invalid_response", "infrastructure")


def test_a_body_that_is_no_json_is_a_failure_and_raises_as_without_us(rollout, stub, client) -> None:
    stub.reply(Raw(200, b"{", "application/json"))
    with rollout(), pytest.raises(ValueError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.failure is not None


def test_an_error_of_our_own_does_not_reach_the_agent(rollout, client, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agentlightning_openai.spans.generation_of", broken)
    monkeypatch.setattr("agentlightning_openai.call.read", broken)
    with rollout(), caplog.at_level(logging.ERROR):
        answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."
    assert "could not be recorded" in caplog.text
    assert len(rollout.spans) == 1


def test_a_call_that_cannot_even_be_begun_goes_on_unrecorded(rollout, client, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agentlightning_openai.call.locate", broken)
    with rollout(), caplog.at_level(logging.ERROR):
        answer = client.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello."
    assert "unrecorded" in caplog.text
    assert rollout.spans == []
