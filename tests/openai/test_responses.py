"""The responses API, recorded in the shape of the chat API."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from stub_answers import Answer, Call, Choice, text, tool_call

from agentlightning import semconv
from agentlightning.records import Policy
from agentlightning_openai.responses_api import assistant_message, chat_messages

TOOL = {"type": "function", "name": "calculator", "parameters": {"type": "object"}, "strict": True}


def test_a_call_is_recorded_as_a_chat(rollout, stub, client) -> None:
    stub.reply(text("7"))
    with rollout():
        client.responses.create(
            model="m", instructions="Be brief.", input="3 + 4?", tools=[TOOL], max_output_tokens=9, temperature=0.5
        )
    span = rollout.span
    said = span.generation
    assert span.name == "chat m"
    assert said.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}]
    function = {"name": "calculator", "parameters": {"type": "object"}, "strict": True}
    assert said.tools == [{"type": "function", "function": function}]
    assert said.response == {"role": "assistant", "content": "7"}
    assert (said.finish_reason, said.temperature) == ("stop", 0.5)
    assert (said.usage.input_tokens, said.usage.output_tokens) == (3, 1)
    assert span.attributes[semconv.REQUEST_MAX_TOKENS] == 9
    assert span.attributes[semconv.RESPONSE_ID] == "resp_1"


def test_a_conversation_of_items_is_recorded_as_messages() -> None:
    call: dict[str, Any] = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    items: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi "}, {"type": "input_text", "text": "you"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        call,
    ]

    def made(id: str) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert chat_messages(None, items) == [
        {"role": "user", "content": "Hi you"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "hm",
            "tool_calls": [made("c1"), made("c2")],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
        {"role": "assistant", "content": None, "tool_calls": [made("c1")]},
    ]


def test_an_item_of_another_type_is_kept_whole() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "found"}]}
    assert assistant_message([search, said]) == {"role": "assistant", "content": "found", "items": [search]}


def test_images_are_kept_as_parts() -> None:
    parts = [{"type": "input_image", "image_url": "data:x"}, {"type": "input_text", "text": "what?"}]
    assert chat_messages(None, [{"role": "user", "content": parts}]) == [{"role": "user", "content": parts}]


def test_tool_calls_and_text_of_an_answer_are_one_message(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("Let me see.", [Call("f", "{}", "c1"), Call("g", "{}", "c2")], reasoning="hm")]))
    with rollout():
        client.responses.create(model="m", input="Hi")
    said = rollout.span.generation
    assert said.finish_reason == "tool_calls"
    assert said.response["content"] == "Let me see."
    assert said.response["reasoning_content"] == "hm"
    assert [call["id"] for call in said.response["tool_calls"]] == ["c1", "c2"]


def test_refusals_are_kept(rollout, stub, client) -> None:
    stub.reply(Answer([Choice(None, refusal="no")]))
    with rollout():
        client.responses.create(model="m", input="Hi")
    assert rollout.span.generation.response == {"role": "assistant", "content": None, "refusal": "no"}


def test_an_answer_cut_short_says_so(rollout, stub, client) -> None:
    stub.reply(Answer([Choice("half", finish_reason="length")]))
    with rollout():
        client.responses.create(model="m", input="Hi")
    assert rollout.span.generation.finish_reason == "length"


async def test_an_asynchronous_call_is_recorded(rollout, async_client) -> None:
    with rollout():
        await async_client.responses.create(model="m", input="Hi")
    assert rollout.span.generation.response["content"] == "Hello."


class Sum(BaseModel):
    result: int


def test_a_parsed_call_is_recorded_and_parsed(rollout, stub, client) -> None:
    stub.reply(text('{"result": 7}'))
    with rollout():
        answer = client.responses.parse(model="m", input="Hi", text_format=Sum)
    assert answer.output_parsed == Sum(result=7)
    assert rollout.span.generation.response["content"] == '{"result": 7}'


def test_events_are_joined(rollout, stub, client) -> None:
    stub.reply(tool_call("f", content="Hm.", a=1))
    with rollout():
        list(client.responses.create(model="m", input="Hi", stream=True))
    span = rollout.span
    assert span.generation.response["content"] == "Hm."
    assert span.generation.response["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert span.generation.usage is not None
    assert semconv.TIME_TO_FIRST_TOKEN in span.attributes


def test_the_stream_helper_works_and_is_recorded(rollout, stub, client) -> None:
    with rollout(), client.responses.stream(model="m", input="Hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == "Hello."
    assert rollout.span.generation.response["content"] == "Hello."


async def test_an_asynchronous_stream_is_recorded(rollout, async_client) -> None:
    with rollout():
        async for _ in await async_client.responses.create(model="m", input="Hi", stream=True):
            pass
    assert rollout.span.generation.response["content"] == "Hello."


def test_a_stream_closed_early_is_recorded_with_what_was_seen(rollout, client) -> None:
    with rollout():
        stream = client.responses.create(model="m", input="Hi", stream=True)
        for event in stream:
            if event.type == "response.output_text.delta":
                break
        stream.close()
    said = rollout.span.generation
    assert (said.response["content"], said.finish_reason) == ("He", None)
    assert rollout.span.attributes[semconv.RESPONSE_ID] == "resp_1"


def test_a_stream_read_line_by_line_is_recorded(rollout, client) -> None:
    create = client.responses.with_streaming_response.create
    with rollout(), create(model="m", input="Hi", stream=True) as response:
        list(response.iter_lines())
    assert rollout.span.generation.response["content"] == "Hello."


@pytest.mark.parametrize("stream", [False, True])
def test_a_policys_call_is_redirected_and_exact(rollout, stub, policy_stub, client, stream) -> None:
    policy = Policy(name="policy", version=1, model="tiny", base_url=policy_stub.base_url)
    policy_stub.reply(Answer([Choice("ok", token_ids=[5, 6], logprobs=[-0.5, -1.0])], [1, 2], policy_version=2))
    with rollout(policy):
        got = client.responses.create(model="gpt", input="Hi", stream=stream)
        got = list(got)[-1].response if stream else got
    assert stub.requests == []
    assert policy_stub.requests[0].path == "/v1/responses"
    said = rollout.span.generation
    assert (said.provenance, said.policy, said.policy_version) == ("exact", "policy", 2)
    assert (said.prompt_ids.tolist(), said.response_ids.tolist()) == ([1, 2], [5, 6])
    assert said.logprobs.tolist() == [-0.5, -1.0]
    assert not {"prompt_token_ids", "token_ids", "logprobs", "policy_version"} & set(got.to_dict())
