"""The keys of an agent's client are written down nowhere, whatever an endpoint repeats of them."""

from __future__ import annotations

import json

import openai
import pytest
from stub_answers import Raw, error, stream, text

from agentlightning import redaction
from agentlightning.recording import span
from agentlightning.records import ModelChoice, Policy
from agentlightning.redaction import REDACTED

MESSAGES = [{"role": "user", "content": "Hi"}]
SECRET = "the-secret-of-the-agent-1"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """Nothing is remembered before a test, nor of it afterwards."""
    monkeypatch.setattr(redaction, "_remembered", {})
    monkeypatch.setattr(redaction, "_longest_first", ())


def made(stub, **options: object) -> openai.OpenAI:
    return openai.OpenAI(**{"base_url": stub.base_url, "api_key": "none", "max_retries": 0, **options})


CLIENTS = {
    "the key": {"api_key": SECRET},
    "a header": {"default_headers": {"X-Api-Key": SECRET}},
    "an authorization": {"default_headers": {"Authorization": f"Bearer {SECRET}"}},
    "a query parameter": {"default_query": {"key": SECRET}},
}
REQUESTS = {
    "a header": {"extra_headers": {"x-auth-token": SECRET}},
    "a query parameter": {"extra_query": {"api_key": SECRET}},
    "the body": {"extra_body": {"provider": "p", "api_key": SECRET}},
}


@pytest.mark.parametrize("status", [400, 401, 500])
@pytest.mark.parametrize("options", CLIENTS.values(), ids=CLIENTS)
def test_a_clients_secret_in_an_error_is_blotted_out(rollout, stub, options, status) -> None:
    stub.reply(error(status, f"who is {SECRET}?"))
    with made(stub, **options) as client, rollout() as recorder, pytest.raises(openai.APIStatusError), span("agent"):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert len(rollout.spans) == 2
    assert SECRET not in repr(rollout.spans) + repr(recorder.failures)
    assert all(f"who is {REDACTED}?" in span.failure.message for span in rollout.spans)


@pytest.mark.parametrize("options", REQUESTS.values(), ids=REQUESTS)
def test_a_requests_secret_in_an_error_is_blotted_out(rollout, stub, options) -> None:
    stub.reply(error(400, f"who is {SECRET}?"))
    with made(stub) as client, rollout(), pytest.raises(openai.BadRequestError), span("agent"):
        client.chat.completions.create(model="m", messages=MESSAGES, **options)
    assert SECRET not in repr(rollout.spans)


def test_a_password_in_the_clients_url_is_blotted_out(rollout, stub) -> None:
    stub.reply(error(400, f"who is {SECRET}?"))
    url = stub.base_url.replace("://", f"://me:{SECRET}@")
    with made(stub, base_url=url) as client, rollout(), pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert SECRET not in repr(rollout.spans)


async def test_an_asynchronous_clients_key_is_blotted_out(rollout, stub) -> None:
    stub.reply(error(401, f"who is {SECRET}?"))
    async with openai.AsyncOpenAI(base_url=stub.base_url, api_key=SECRET, max_retries=0) as client:
        with rollout(), pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=MESSAGES)
    assert SECRET not in repr(rollout.spans)


def test_a_key_that_the_client_fetches_is_blotted_out(rollout, stub) -> None:
    stub.reply(error(401, f"who is {SECRET}?"))
    with made(stub, api_key=lambda: SECRET) as client, rollout(), pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert SECRET not in repr(rollout.spans)


@pytest.mark.parametrize(
    "answer",
    [
        stream({"error": {"message": f"who is {SECRET}?", "code": 401}}),
        Raw(200, json.dumps({"error": {"message": f"who is {SECRET}?", "code": 401}}).encode()),
        Raw(200, f"<html>{SECRET}</html>".encode(), "text/html"),
        Raw(200, json.dumps({"said": SECRET}).encode()),
    ],
    ids=["stream", "error in a good status", "html", "something else"],
)
def test_a_key_in_an_answer_that_is_none_is_blotted_out(rollout, stub, answer) -> None:
    stub.reply(answer)
    streamed = answer.content_type == "text/event-stream"
    with made(stub, api_key=SECRET) as client, rollout():
        try:
            list(client.chat.completions.create(model="m", messages=MESSAGES, stream=streamed))
        except openai.APIError:
            assert streamed
    assert rollout.span.failure is not None
    assert SECRET not in repr(rollout.spans)


def test_a_key_in_what_was_said_is_blotted_out_and_the_agent_has_it(rollout, stub) -> None:
    stub.reply(text(f"You sent {SECRET}."))
    with made(stub, api_key=SECRET) as client, rollout():
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"I am {SECRET}"}],
            logprobs=True, extra_body={"return_token_ids": True},
        )  # fmt: skip
    said = rollout.span.generation
    assert answer.choices[0].message.content == f"You sent {SECRET}."
    assert json.loads(stub.requests[0].body)["messages"][0]["content"] == f"I am {SECRET}"
    assert said.messages == [{"role": "user", "content": f"I am {REDACTED}"}]
    assert said.response["content"] == f"You sent {REDACTED}."
    assert [chr(id - 1000) for id in said.response_ids] == list(f"You sent {SECRET}.")


def test_what_only_looks_like_a_key_stays_in_what_was_said(rollout, stub) -> None:
    stub.reply(text("Try sk-abcdefgh12345678."))
    with made(stub) as client, rollout():
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert rollout.span.generation.response["content"] == "Try sk-abcdefgh12345678."


@pytest.mark.parametrize("kind", [Policy, ModelChoice])
def test_the_key_of_another_endpoint_is_blotted_out(rollout, policy_stub, client, monkeypatch, kind) -> None:
    monkeypatch.setenv("STUB_ENDPOINT", SECRET)
    policy_stub.reply(error(401, f"who is {SECRET}?"))
    resource = kind(name="other", model="m", base_url=policy_stub.base_url, api_key_env="STUB_ENDPOINT")
    with rollout(resource), pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert SECRET not in repr(rollout.spans)
