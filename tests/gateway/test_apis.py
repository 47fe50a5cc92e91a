"""The three APIs of the engine, asked by the real client: one model, one set of tokens, three shapes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest

from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel

EXACT = {"return_token_ids": True, "logprobs": True, "seed": 7}
TOOL = {"name": "calculator", "parameters": {"type": "object", "properties": {}}}
CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "3 + 4"}}</tool_call>'
USER = {"role": "user", "content": "hi"}

Write = Callable[[list[int]], None]


@pytest.fixture
async def openai_client(engine: Engine) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(base_url=engine.base_url, api_key="none", max_retries=0) as client:
        yield client


async def last_response(stream: Any) -> tuple[list[Any], Any]:
    events = [event async for event in stream]
    return events, events[-1].response


async def test_responses_and_chat_draw_the_same_tokens(openai_client: Any) -> None:
    chat = await openai_client.chat.completions.create(
        model="policy", messages=[{"role": "system", "content": "be brief"}, USER], extra_body=EXACT
    )
    response = await openai_client.responses.create(
        model="policy", instructions="be brief", input="hi", extra_body=EXACT
    )
    assert response.prompt_token_ids == chat.prompt_token_ids
    assert response.token_ids == chat.choices[0].token_ids
    assert response.logprobs == pytest.approx([token.logprob for token in chat.choices[0].logprobs.content], abs=1e-5)
    assert response.output_text == chat.choices[0].message.content
    assert response.usage.total_tokens == chat.usage.total_tokens
    assert (response.policy_version, response.status) == (0, "incomplete")
    assert response.incomplete_details.reason == "max_output_tokens"


async def test_a_stream_of_a_response_says_what_the_whole_one_says(openai_client: Any) -> None:
    whole = await openai_client.responses.create(model="policy", input="hi", extra_body=EXACT)
    stream = await openai_client.responses.create(model="policy", input="hi", stream=True, extra_body=EXACT)
    events, response = await last_response(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    assert response.output_text == whole.output_text
    assert (response.token_ids, response.prompt_token_ids) == (whole.token_ids, whole.prompt_token_ids)
    kinds = [event.type for event in events if event.type != "response.output_text.delta"]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_tool_is_called_and_its_result_continues_the_same_tokens(
    engine: Engine, openai_client: Any, policy: PolicyModel, write: Write, streamed: bool
) -> None:
    write([*policy.tokenizer.encode(CALL), policy.tokenizer.eos_token_id])
    options: dict[str, Any] = {
        "model": "policy",
        "tools": [{"type": "function", "strict": True, **TOOL}],
        "max_output_tokens": 99,
        "extra_body": EXACT,
        "extra_headers": {"x-agentlightning-rollout": "r"},
    }
    if streamed:
        stream = await openai_client.responses.create(input=[USER], stream=True, **options)
        events, first = await last_response(stream)
        pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
        assert "".join(pieces) == first.output[0].arguments
        assert not [event for event in events if event.type == "response.output_text.delta"]
    else:
        first = await openai_client.responses.create(input=[USER], **options)
    (call,) = first.output
    assert (call.type, call.name, call.arguments) == ("function_call", "calculator", '{"expression":"3 + 4"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "7"}
    second = await openai_client.responses.create(input=[USER, call.model_dump(), result], **options)
    assert second.prompt_token_ids[: len(first.prompt_token_ids + first.token_ids)] == (
        first.prompt_token_ids + first.token_ids
    )
    assert (engine.gateway.stats.rendered, engine.gateway.stats.continued) == (1, 1)


async def test_text_and_a_call_of_one_answer_are_one_message(
    engine: Engine, openai_client: Any, policy: PolicyModel, write: Write
) -> None:
    write([*policy.tokenizer.encode(f"let me see {CALL}"), policy.tokenizer.eos_token_id])
    options: dict[str, Any] = {
        "model": "policy",
        "tools": [{"type": "function", **TOOL}],
        "max_output_tokens": 99,
        "extra_headers": {"x-agentlightning-rollout": "r"},
    }
    first = await openai_client.responses.create(input=[USER], **options)
    assert [item.type for item in first.output] == ["message", "function_call"]
    result = {"type": "function_call_output", "call_id": first.output[1].call_id, "output": "7"}
    await openai_client.responses.create(input=[USER, *(item.model_dump() for item in first.output), result], **options)
    assert engine.gateway.stats.continued == 1


async def test_a_completion_goes_on_from_text_or_tokens(openai_client: Any, policy: PolicyModel) -> None:
    ids = policy.tokenizer.encode("once upon a time")
    options: dict[str, Any] = {"model": "policy", "max_tokens": 8, "logprobs": 2}
    exact = {"return_token_ids": True, "seed": 7}
    from_text = await openai_client.completions.create(prompt="once upon a time", extra_body=exact, **options)
    from_ids = await openai_client.completions.create(prompt=ids, extra_body=exact, **options)
    (choice,) = from_text.choices
    assert choice.prompt_token_ids == ids
    assert choice.token_ids == from_ids.choices[0].token_ids
    assert len(choice.token_ids) == len(choice.logprobs.token_logprobs) == 8
    assert choice.text == policy.tokenizer.decode(choice.token_ids, skip_special_tokens=True)
    assert all(1 <= len(top) <= 2 for top in choice.logprobs.top_logprobs), "tokens of one text share a key"
    assert (from_text.usage.prompt_tokens, from_text.usage.completion_tokens) == (len(ids), 8)


async def test_several_prompts_and_choices_are_answered_in_order_streamed_or_not(openai_client: Any) -> None:
    options: dict[str, Any] = {
        "model": "policy",
        "prompt": ["one", "two"],
        "n": 2,
        "extra_body": {"return_token_ids": True, "seed": 7},
    }
    whole = await openai_client.completions.create(**options)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    prompts = [choice.prompt_token_ids for choice in whole.choices]
    assert prompts[0] == prompts[1] != prompts[2] == prompts[3]
    parts: dict[int, list[Any]] = {}
    async for chunk in await openai_client.completions.create(stream=True, **options):
        for choice in chunk.choices:
            parts.setdefault(choice.index, []).append(choice)
    for choice in whole.choices:
        own = parts[choice.index]
        assert "".join(part.text for part in own) == choice.text
        assert [id for part in own for id in part.token_ids] == choice.token_ids
        assert own[0].prompt_token_ids == choice.prompt_token_ids
        assert own[-1].finish_reason == choice.finish_reason == "length"


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("responses", {"input": []}, "input"),
    ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
    ("responses", {"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", {"input": "hi", "tools": [{"type": "web_search"}]}, "tools[0]"),
    ("responses", {"input": "hi", "tool_choice": "required"}, "tool_choice"),
    ("responses", {"input": "hi", "text": {"format": {"type": "grammar"}}}, "text.format"),
    ("responses", {"input": "hi", "temperature": "hot"}, "temperature"),
    ("completions", {}, "prompt"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": ""}, "prompt"),
    ("completions", {"prompt": ["a", 3]}, "prompt"),
    ("completions", {"prompt": "a", "echo": True}, "echo"),
    ("completions", {"prompt": "a", "best_of": 3}, "best_of"),
    ("completions", {"prompt": "a", "logprobs": 99}, "logprobs"),
]


@pytest.mark.parametrize(("path", "fields", "param"), BAD)
async def test_a_bad_request_is_told_what_is_wrong(
    engine: Engine, client: Any, path: str, fields: dict[str, Any], param: str
) -> None:
    response = await client.post(f"{engine.base_url}/{path}", json={"model": "policy", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
