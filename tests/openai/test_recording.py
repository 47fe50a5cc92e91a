"""What is recorded of a model call that goes where the agent sends it."""

from __future__ import annotations

import asyncio
import contextvars
import gzip
import logging
import threading
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai._models import FinalRequestOptions
from pydantic import BaseModel
from stub_server import Answer, Call, Choice, Raw, StubServer, error, text, tool_call

from agentlightning import recording, semconv
from agentlightning.records import ModelChoice, Policy, Span, decode, encode

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": {"type": "object", "properties": {}}}}]


def test_a_chat_call_is_a_span_with_request_and_answer(rollout, stub, client) -> None:
    stub.reply(text("Hello."))
    with rollout():
        client.chat.completions.create(
            model="m", messages=MESSAGES, tools=TOOLS, temperature=0.5, top_p=0.9, max_tokens=7, seed=3
        )
    span = rollout.span
    assert (span.kind, span.name, span.failure) == ("llm", "chat m", None)
    said = span.generation
    assert said.messages == MESSAGES
    assert said.tools == TOOLS
    assert said.response == {"role": "assistant", "content": "Hello."}
    assert (said.model, said.finish_reason, said.temperature) == ("m", "stop", 0.5)
    assert (said.usage.input_tokens, said.usage.output_tokens) == (3, 6)
    assert said.provenance == "text"
    assert span.started_at <= span.ended_at
    assert span.attributes == {
        semconv.OPERATION_NAME: "chat",
        semconv.PROVIDER_NAME: "openai",
        semconv.REQUEST_MODEL: "m",
        semconv.REQUEST_TEMPERATURE: 0.5,
        semconv.REQUEST_TOP_P: 0.9,
        semconv.REQUEST_MAX_TOKENS: 7,
        semconv.REQUEST_SEED: 3,
        semconv.RESPONSE_ID: "chatcmpl-1",
        semconv.RESPONSE_MODEL: "m",
        semconv.RESPONSE_FINISH_REASONS: ["stop"],
        semconv.USAGE_INPUT_TOKENS: 3,
        semconv.USAGE_OUTPUT_TOKENS: 6,
    }


def test_tool_calls_are_in_the_response(rollout, stub, client) -> None:
    stub.reply(tool_call("calculator", expression="3 + 4"))
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES, tools=TOOLS)
    said = rollout.span.generation
    assert said.finish_reason == "tool_calls"
    assert said.response == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "calculator", "arguments": '{"expression": "3 + 4"}'},
            }
        ],
    }


async def test_an_asynchronous_call_is_recorded(rollout, stub, async_client) -> None:
    with rollout():
        await async_client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.generation.response["content"] == "Hello."


def test_nothing_is_recorded_outside_a_rollout(rollout, stub, client) -> None:
    assert client.chat.completions.create(model="m", messages=MESSAGES).choices[0].message.content == "Hello."
    assert rollout.spans == []


def test_other_requests_are_let_through(rollout, stub, client) -> None:
    with rollout():
        client.models.list()
    assert rollout.spans == []


def test_a_call_hangs_under_the_span_it_was_made_in_and_is_its_agents(rollout, client) -> None:
    with rollout(), recording.span("planner", agent="planner"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    call, agent = rollout.spans
    assert (call.parent_id, call.agent) == (agent.id, "planner")


def test_a_call_hangs_where_a_framework_says_it_does(rollout, client) -> None:
    with rollout() as recorder:
        node = recorder.start("agent", "node", agent="node")
        recording.add_locator(locator := lambda _: node)
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)
        finally:
            recording.remove_locator(locator)
    assert (rollout.span.parent_id, rollout.span.agent) == (node.id, "node")


def test_a_call_of_one_framework_inside_another_hangs_under_the_inner_one(rollout, client) -> None:
    with rollout() as recorder:
        outer = recorder.start("agent", "outer", agent="outer")
        inner = recorder.start("agent", "inner", parent=outer, agent="inner")
        locators = [lambda _: outer, lambda _: inner, lambda _: None]
        for locator in locators:
            recording.add_locator(locator)
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)
        finally:
            for locator in locators:
                recording.remove_locator(locator)
    assert (rollout.span.parent_id, rollout.span.agent) == (inner.id, "inner")


def test_an_announced_call_is_one_span(rollout, client) -> None:
    with rollout() as recorder:
        announced = recorder.start("llm", "ChatOpenAI", agent="node")
        recorder.announced.add(announced.id)
        recording.add_locator(locator := lambda _: announced)
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)
        finally:
            recording.remove_locator(locator)
        recorder.end(announced)
    assert rollout.span.id == announced.id
    assert rollout.span.generation.response["content"] == "Hello."


def test_messages_are_recorded_as_they_were_sent_whatever_the_agent_does_to_them_later(rollout, client) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    with rollout():
        answer = client.chat.completions.create(model="m", messages=messages)
        messages[0]["content"] = "changed"
        messages.append(answer.choices[0].message)
        client.chat.completions.create(model="m", messages=messages)
    first, second = rollout.spans
    assert first.generation.messages == [{"role": "user", "content": "Hi"}]
    assert second.generation.messages[1]["content"] == "Hello."


def test_messages_that_the_client_passes_on_uncopied_are_recorded_as_they_were_sent(rollout, client) -> None:
    messages: list[Any] = [{"role": "user", "content": "Hi"}]
    with rollout():
        client.post("/chat/completions", cast_to=object, body={"model": "m", "messages": messages})
    messages[0]["content"] = "changed"
    assert rollout.span.generation.messages == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("resources", [[], [ModelChoice(name="choice", model="cheap")]], ids=["as it is", "steered"])
def test_the_requests_options_are_not_changed_in_place(rollout, client, resources) -> None:
    options = FinalRequestOptions.construct(
        method="post", url="/chat/completions", json_data={"model": "m", "messages": MESSAGES}, extra_json={"top_k": 1}
    )
    before = dict(options.__dict__)
    with rollout(*resources):
        client.request(object, options)
    assert options.__dict__ == before
    assert len(rollout.spans) == 1


def test_token_ids_and_logprobs_of_the_engine_are_exact(rollout, stub, client) -> None:
    stub.reply(
        Answer([Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.5])], prompt_token_ids=[1, 2], policy_version=4)
    )
    with rollout():
        client.chat.completions.create(
            model="m", messages=MESSAGES, logprobs=True, extra_body={"return_token_ids": True}
        )
    said = rollout.span.generation
    assert said.provenance == "exact"
    assert (said.prompt_ids.dtype, said.response_ids.dtype, said.logprobs.dtype) == (np.int32, np.int32, np.float32)
    assert said.prompt_ids.tolist() == [1, 2]
    assert said.response_ids.tolist() == [5, 6]
    assert said.logprobs.tolist() == [-0.5, -1.5]
    assert said.policy_version == 4
    assert said.policy is None


@pytest.mark.parametrize(
    ("choice", "logprobs", "ids"),
    [
        (Choice("ok", token_ids=[5, 6], logprobs=[-0.5]), True, True),
        (Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.5]), False, True),
        (Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.5]), True, False),
        (Choice("ok", token_ids=[2**40, 6], logprobs=[-0.5, -1.5]), True, True),
    ],
    ids=["lengths differ", "no logprobs", "no ids", "ids no int32"],
)
def test_tokens_that_are_not_whole_are_not_recorded(rollout, stub, client, choice, logprobs, ids) -> None:
    stub.reply(Answer([choice], exact=ids))
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES, logprobs=logprobs)
    said = rollout.span.generation
    assert said.provenance == "text"
    assert said.prompt_ids is None
    assert said.response_ids is None
    assert said.logprobs is None
    assert said.response["content"] == "ok"


def test_each_choice_has_a_span(rollout, stub, client) -> None:
    choices = [Choice("a", token_ids=[7], logprobs=[-1.0]), Choice("b", token_ids=[8], logprobs=[-2.0])]
    stub.reply(Answer(choices))
    with rollout(), recording.span("planner", agent="planner"):
        client.chat.completions.create(
            model="m", messages=MESSAGES, n=2, logprobs=True, extra_body={"return_token_ids": True}
        )
    second, first, agent = rollout.spans
    assert first.index < second.index
    for span, content, token in ((first, "a", 7), (second, "b", 8)):
        assert (span.parent_id, span.agent) == (agent.id, "planner")
        assert span.generation.messages == MESSAGES
        assert span.generation.response["content"] == content
        assert span.generation.response_ids.tolist() == [token]
    assert first.started_at == second.started_at
    assert first.generation.usage is not None
    assert second.generation.usage is None


def test_each_choice_of_an_announced_call_stands_beside_it(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("a"), Choice("b")]))
    with rollout() as recorder:
        node = recorder.start("agent", "node", agent="node")
        announced = recorder.start("llm", "ChatOpenAI", parent=node)
        recorder.announced.add(announced.id)
        recording.add_locator(locator := lambda _: announced)
        try:
            client.chat.completions.create(model="m", messages=MESSAGES, n=2)
        finally:
            recording.remove_locator(locator)
    assert [span.parent_id for span in rollout.spans] == [node.id, node.id]


def test_reasoning_and_refusals_are_kept(rollout, stub, client) -> None:
    stub.reply(Answer([Choice(None, reasoning="hm", refusal="no")]))
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.generation.response == {
        "role": "assistant",
        "content": None,
        "refusal": "no",
        "reasoning_content": "hm",
    }


def test_embeddings_are_recorded_without_a_generation(rollout, client) -> None:
    with rollout():
        client.embeddings.create(model="e", input="x")
    span = rollout.span
    assert (span.kind, span.name, span.generation) == ("llm", "embeddings e", None)
    assert span.attributes[semconv.USAGE_INPUT_TOKENS] == 3


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


def test_the_agents_key_is_in_no_span(rollout, stub) -> None:
    key = "sk-very-secret"
    stub.reply(error(401, f"Incorrect API key provided: {key}"), text("fine"))
    client = openai.OpenAI(base_url=stub.base_url, api_key=key, max_retries=0)
    with rollout():
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="m", messages=MESSAGES)
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert len(rollout.spans) == 2
    assert key.encode() not in encode(rollout.spans)


def test_a_span_survives_the_store(rollout, stub, client) -> None:
    stub.reply(tool_call("calculator", expression="1"))
    with rollout():
        client.chat.completions.create(
            model="m", messages=MESSAGES, tools=TOOLS, logprobs=True, extra_body={"return_token_ids": True}
        )
    again = decode(encode(rollout.span), Span)
    assert again.generation.response == rollout.span.generation.response
    assert again.generation.response_ids.tolist() == rollout.span.generation.response_ids.tolist()


def test_an_error_of_our_own_does_not_reach_the_agent(rollout, client, monkeypatch, caplog) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("agentlightning_openai.call.generation_of", broken)
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


def _raw_requests(stub: StubServer, client: openai.OpenAI) -> list[tuple[str, str, list[tuple[str, str]], bytes]]:
    stub.requests.clear()
    client.chat.completions.create(
        model="m", messages=MESSAGES, tools=TOOLS, temperature=0.3, extra_body={"x": 1}, extra_headers={"x-mine": "1"}
    )
    list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        stream.until_done()
    client.chat.completions.parse(model="m", messages=MESSAGES, tools=[], extra_query={"q": "1"})
    client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).parse()
    client.responses.create(model="m", input="Hi", instructions="Be brief.")
    list(client.responses.create(model="m", input="Hi", stream=True))
    client.embeddings.create(model="e", input="x")
    return [(request.method, request.path, request.headers, request.body) for request in stub.requests]


def test_calls_that_are_not_steered_are_sent_byte_for_byte_as_without_us(stub, client, request) -> None:
    without = _raw_requests(stub, client)
    rollout = request.getfixturevalue("rollout")
    others = Policy(name="p", agents=("somebody-else",), model="x", base_url="http://127.0.0.1:9/v1")
    with rollout(others, seed=1):
        within = _raw_requests(stub, client)
    assert within == without
    assert len(rollout.spans) == len(without)


def test_answers_that_are_not_steered_are_what_they_are_without_us(stub, client, rollout) -> None:
    def ask() -> tuple[Any, Any]:
        stub.reply(Answer([Choice("ok")], exact=True), Answer([Choice("ok")], exact=True))
        whole = client.chat.completions.create(model="m", messages=MESSAGES, logprobs=True)
        chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, logprobs=True))
        return whole.to_dict() | {"id": ""}, [chunk.to_dict() | {"id": ""} for chunk in chunks]

    without = ask()
    with rollout():
        within = ask()
    assert within == without
    assert len(rollout.spans) == 2


def test_a_thread_with_the_context_records(rollout, client) -> None:
    with rollout():
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(lambda: client.chat.completions.create(model="m", messages=MESSAGES),)
        )
        thread.start()
        thread.join()
    assert rollout.span.generation.response["content"] == "Hello."


def test_a_client_with_an_http_client_of_its_own_is_recorded(rollout, stub) -> None:
    with httpx.Client() as http, rollout():
        client = openai.OpenAI(base_url=stub.base_url, api_key="k", http_client=http)
        client.chat.completions.create(model="m", messages=MESSAGES)
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))
    assert [span.generation.response["content"] for span in rollout.spans] == ["Hello.", "Hello."]


def test_two_calls_of_one_answer_are_kept_apart(rollout, stub, client) -> None:
    stub.reply(Answer([Choice(None, [Call("a", "{}", "1"), Call("b", "{}", "2")])]))
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES)
    calls = rollout.span.generation.response["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["a", "b"]
