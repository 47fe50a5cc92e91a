"""What is recorded of a model call that goes where the agent sends it."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai._models import FinalRequestOptions
from stub_answers import Answer, Call, Choice, error, text, tool_call
from stub_server import StubServer

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
        semconv.SERVER_ADDRESS: "127.0.0.1",
        semconv.SERVER_PORT: int(stub.base_url.removesuffix("/v1").rpartition(":")[2]),
        semconv.RESPONSE_ID: "chatcmpl-1",
        semconv.RESPONSE_MODEL: "m",
        semconv.RESPONSE_FINISH_REASONS: ["stop"],
        semconv.USAGE_INPUT_TOKENS: 3,
        semconv.USAGE_OUTPUT_TOKENS: 6,
    }


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_a_wish_for_json_is_noted(rollout, stub, client, kind: str) -> None:
    stub.reply(text("{}"))
    wanted: dict[str, Any] = {"type": kind}
    if kind == "json_schema":
        wanted["json_schema"] = {"name": "any", "schema": {"type": "object"}}
    with rollout():
        client.chat.completions.create(model="m", messages=MESSAGES, response_format=wanted)
    assert rollout.span.attributes[semconv.OUTPUT_TYPE] == "json"


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


def test_an_expected_call_is_one_span(rollout, client) -> None:
    with rollout() as recorder:
        expected = recorder.start("llm", "ChatOpenAI", agent="node")
        recorder.expect_call(expected)
        recording.add_locator(locator := lambda _: expected)
        try:
            client.chat.completions.create(model="m", messages=MESSAGES)
        finally:
            recording.remove_locator(locator)
        recorder.end(expected)
    assert rollout.span.id == expected.id
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


@pytest.mark.parametrize("resources", [[], [ModelChoice(name="choice", model="cheap")]], ids=["as it is", "routed"])
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


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("mode", [None, "raw"], ids=["says nothing", "raw"])
def test_tokens_are_exact_only_where_the_endpoint_says_what_its_logprobs_are_of(
    rollout, stub, client, mode, stream
) -> None:
    stub.reply(Answer([Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.5])], logprobs_mode=mode))
    with rollout():
        answer = client.chat.completions.create(
            model="m", messages=MESSAGES, logprobs=True, stream=stream, extra_body={"return_token_ids": True}
        )
        list(answer)
    said = rollout.span.generation
    assert (said.provenance, said.response_ids, said.logprobs) == ("text", None, None)
    assert said.response["content"] == "ok"


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


def test_each_choice_of_an_expected_call_stands_beside_it(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("a"), Choice("b")]))
    with rollout() as recorder:
        node = recorder.start("agent", "node", agent="node")
        expected = recorder.start("llm", "ChatOpenAI", parent=node)
        recorder.expect_call(expected)
        recording.add_locator(locator := lambda _: expected)
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


def test_calls_that_are_not_routed_are_sent_byte_for_byte_as_without_us(stub, client, request) -> None:
    without = _raw_requests(stub, client)
    rollout = request.getfixturevalue("rollout")
    others = Policy(name="p", agents=("somebody-else",), model="x", base_url="http://127.0.0.1:9/v1")
    with rollout(others, seed=1):
        within = _raw_requests(stub, client)
    assert within == without
    assert len(rollout.spans) == len(without)


def test_answers_that_are_not_routed_are_what_they_are_without_us(stub, client, rollout) -> None:
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
