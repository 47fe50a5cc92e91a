"""What is recorded of an answer that the agent parses or reads itself."""

from __future__ import annotations

import gzip

import openai
import pytest
from pydantic import BaseModel
from stub_answers import Answer, Choice, Raw, text

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


class Sum(BaseModel):
    result: int


def test_a_parsed_call_is_recorded_and_parsed(rollout, stub, client) -> None:
    stub.reply(text('{"result": 7}'))
    with rollout():
        answer = client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Sum)
    assert answer.choices[0].message.parsed == Sum(result=7)
    assert rollout.span.generation.response == {"role": "assistant", "content": '{"result": 7}'}


def test_an_answer_that_the_agent_cannot_parse_is_recorded_as_it_came(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("half", finish_reason="length")]))
    with rollout(), pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Sum)
    assert rollout.span.generation.finish_reason == "length"
    assert rollout.span.failure is None


def test_a_raw_response_is_recorded_and_left_to_the_agent(rollout, client) -> None:
    with rollout():
        raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
        assert rollout.span.generation.response["content"] == "Hello."
    assert raw.http_response.json()["choices"][0]["message"]["content"] == "Hello."
    assert raw.parse().choices[0].message.content == "Hello."
    assert len(rollout.spans) == 1


async def test_an_asynchronous_raw_response_is_recorded(rollout, async_client) -> None:
    with rollout():
        raw = await async_client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    assert rollout.span.generation.response["content"] == "Hello."
    assert raw.parse().choices[0].message.content == "Hello."


@pytest.mark.parametrize("read", ["parse", "json", "read", "iter_lines"])
def test_a_body_that_the_agent_reads_itself_is_recorded(rollout, client, read) -> None:
    with (
        rollout(),
        client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response,
    ):
        assert rollout.spans == []
        got = getattr(response, read)()
        if read == "iter_lines":
            list(got)
    assert rollout.span.generation.response["content"] == "Hello."


async def test_an_asynchronous_body_that_the_agent_reads_itself_is_recorded(rollout, async_client) -> None:
    create = async_client.chat.completions.with_streaming_response.create
    with rollout():
        async with create(model="m", messages=MESSAGES) as response:
            assert (await response.json())["choices"][0]["message"]["content"] == "Hello."
    assert rollout.span.generation.response["content"] == "Hello."


def test_a_compressed_body_that_the_agent_reads_itself_is_recorded(rollout, stub, client) -> None:
    body = b'{"id": "x", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", '
    body += b'"message": {"role": "assistant", "content": "packed"}}]}'
    stub.reply(Raw(200, gzip.compress(body), headers={"content-encoding": "gzip"}))
    with (
        rollout(),
        client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response,
    ):
        response.read()
    assert rollout.span.generation.response["content"] == "packed"


def test_a_body_that_nobody_read_ends_its_span(rollout, client) -> None:
    with rollout(), client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES):
        pass
    assert rollout.span.generation.response is None


def test_a_plain_post_is_recorded(rollout, client) -> None:
    with rollout():
        client.post("/chat/completions", cast_to=object, body={"model": "m", "messages": MESSAGES})
    assert rollout.span.generation.response["content"] == "Hello."
