"""Answers that follow the API only in part: what is there is recorded, without a word in the log."""

from __future__ import annotations

import json
import logging

import pytest
from stub_answers import Raw, stream

from agentlightning import semconv
from agentlightning.records import Generation, decode, encode

MESSAGES = [{"role": "user", "content": "Hi"}]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
SAID = {"role": "assistant", "content": "Hello."}


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        yield
    assert caplog.text == ""


@pytest.fixture
def ask(rollout, stub, client):
    """The span of a call that was answered with this body, whole, or with these chunks."""

    def ask(*answer: object, streamed: bool = False, api: str = "chat"):
        stub.reply(stream(*answer) if streamed else Raw(200, json.dumps(answer[0]).encode()))
        with rollout():
            if api == "chat":
                got = client.chat.completions.create(model="m", messages=MESSAGES, stream=streamed)
            elif api == "text":
                got = client.completions.create(model="m", prompt="Hi", stream=streamed)
            else:
                got = client.responses.create(model="m", input="Hi", stream=streamed)
            if streamed:
                list(got)
        span = rollout.span
        if span.generation is not None:
            decode(encode(span.generation), Generation)
        return span

    return ask


def chat(*choices: object, **fields: object) -> dict[str, object]:
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": list(choices), "usage": USAGE, **fields}


def choice(message: object, **fields: object) -> dict[str, object]:
    return {"index": 0, "message": message, "finish_reason": "stop", **fields}


def test_a_choice_without_a_message_keeps_its_finish_reason_and_usage(ask) -> None:
    span = ask(chat(choice(None, finish_reason="content_filter")))
    assert span.generation.finish_reason == "content_filter"
    assert span.attributes[semconv.RESPONSE_FINISH_REASONS] == ["content_filter"]
    assert (span.generation.usage.input_tokens, span.generation.usage.output_tokens) == (3, 2)
    assert (span.generation.response, span.failure) == (None, None)


def test_a_chunk_without_a_delta_keeps_its_finish_reason_and_usage(ask) -> None:
    filtered = {"index": 0, "delta": None, "finish_reason": "content_filter"}
    span = ask(chat(filtered, usage=None), chat(), streamed=True)
    assert (span.generation.finish_reason, span.generation.usage.output_tokens) == ("content_filter", 2)
    assert span.failure is None


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "answer",
    [chat(), chat(choices=None), {"id": "c", "usage": USAGE}],
    ids=["no choice", "choices of null", "no choices"],
)
def test_an_answer_without_a_choice_is_the_infrastructures_failure(ask, answer, streamed) -> None:
    span = ask(answer, streamed=streamed)
    assert (span.failure.type, span.failure.fault) == ("invalid_response", "infrastructure")
    assert span.generation.usage.output_tokens == 2


@pytest.mark.parametrize(
    ("error", "type", "fault"),
    [
        ({"code": 429, "message": "slow down"}, "rate_limited", "infrastructure"),
        ({"code": 502, "message": "the provider died"}, "engine_unavailable", "infrastructure"),
        ({"code": "context_length_exceeded", "message": "too long"}, "context_too_long", "agent"),
        ({"message": "who knows"}, "engine_unavailable", "infrastructure"),
    ],
)
@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}], ids=["none", "null", "empty"])
def test_an_error_in_a_good_status_is_a_typed_failure(ask, choices, error, type, fault) -> None:
    failure = ask({"error": error, **choices}).failure
    assert (failure.type, failure.fault) == (type, fault)
    assert error["message"] in failure.message


def test_a_choice_that_broke_off_with_an_error_is_a_failure_with_what_was_said(ask) -> None:
    span = ask(chat(choice(SAID, finish_reason="error", error={"code": 502, "message": "the provider died"})))
    assert (span.generation.response, span.generation.finish_reason) == (SAID, "error")
    assert (span.failure.type, span.failure.fault) == ("engine_unavailable", "infrastructure")


@pytest.mark.parametrize("usage", [None, {}, [], "many", {"prompt_tokens": None, "completion_tokens": "2"}])
def test_usage_that_counts_nothing_does_no_harm(ask, usage) -> None:
    span = ask(chat(choice(SAID), usage=usage))
    assert (span.generation.response, span.failure) == (SAID, None)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "logprobs",
    [None, {}, {"content": None}, {"content": [{"token": "t"}]}, {"content": [{"logprob": "x"}]}, []],
    ids=["null", "empty", "content of null", "no number", "text", "list"],
)
def test_tokens_without_logprobs_are_text(ask, logprobs, streamed) -> None:
    tokens = {"token_ids": [1], "logprobs": logprobs}
    answer = chat(choice(SAID, **tokens, delta=SAID), prompt_token_ids=[1], logprobs_mode="tempered")
    span = ask(answer, streamed=streamed)
    assert (span.generation.response, span.generation.provenance) == (SAID, "text")


@pytest.mark.parametrize("ids", [[1.5], ["1"], [2**31], [[1]], [None], "1", [1, [2]]], ids=str)
def test_token_ids_that_are_none_are_not_rounded(ask, ids) -> None:
    logprobs = {"content": [{"token": "t", "logprob": -1.0, "bytes": None, "top_logprobs": []}]}
    span = ask(chat(choice(SAID, token_ids=ids, logprobs=logprobs), prompt_token_ids=[1], logprobs_mode="tempered"))
    assert (span.generation.response, span.generation.provenance) == (SAID, "text")


def test_a_logprob_that_is_no_finite_number_is_not_trained_on(ask) -> None:
    logprobs = {"content": [{"token": "t", "logprob": float("-inf"), "bytes": None, "top_logprobs": []}]}
    span = ask(chat(choice(SAID, token_ids=[1], logprobs=logprobs), prompt_token_ids=[1], logprobs_mode="tempered"))
    assert span.generation.provenance == "text"


@pytest.mark.parametrize("reason", ["eos", "", None, 3])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_finish_reason_of_the_endpoints_own_is_kept(ask, reason, streamed) -> None:
    span = ask(chat(choice(SAID, finish_reason=reason, delta=SAID)), streamed=streamed)
    kept = None if reason is None or (streamed and not reason) else str(reason)
    assert (span.generation.response, span.generation.finish_reason) == (SAID, kept)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_answer_of_nothing_but_choices_is_enough(ask, streamed) -> None:
    said = {"content": "Hello."}
    span = ask({"choices": [{"message": said, "delta": said}]}, streamed=streamed)
    assert (span.generation.response, span.generation.finish_reason, span.failure) == (SAID, None, None)


def test_content_in_parts_is_kept(ask) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hello."}]
    assert ask(chat(choice({"role": "assistant", "content": parts}))).generation.response["content"] == parts


def test_whatever_a_message_says_is_kept(ask) -> None:
    said = {
        "role": "assistant",
        "content": None,
        "refusal": "no",
        "reasoning": "hm",
        "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": None}],
        "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a"}}],
        "audio": {"id": "a", "data": "AAAA", "transcript": "no"},
        "function_call": {"name": "add", "arguments": "{}"},
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "add", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "s"}},
            },
            {"id": "b", "type": "custom", "custom": {"name": "code", "input": "1"}},
        ],
        "vendor": {"list": [1], "deep": {"note": None}},
    }
    assert ask(chat(choice(said))).generation.response == said


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("text", [{"text": None}, {}], ids=["null", "none"])
def test_a_legacy_completion_without_text_keeps_its_finish_reason(ask, text, streamed) -> None:
    answer = {"choices": [{"index": 0, "finish_reason": "content_filter", **text}], "usage": USAGE}
    span = ask(*([answer] * (2 if streamed else 1)), streamed=streamed, api="text")
    assert (span.generation.finish_reason, span.generation.usage.output_tokens) == ("content_filter", 2)


@pytest.mark.parametrize("logprobs", [None, {}, {"token_logprobs": None}, {"token_logprobs": [None]}], ids=str)
def test_a_legacy_completion_without_logprobs_is_text(ask, logprobs) -> None:
    tokens = {"token_ids": [1], "prompt_token_ids": [1], "logprobs": logprobs}
    completion = {"choices": [{"index": 0, "text": "Hello.", "finish_reason": "stop", **tokens}]}
    span = ask({**completion, "logprobs_mode": "tempered"}, api="text")
    assert (span.generation.response, span.generation.provenance) == (SAID, "text")


@pytest.mark.parametrize("choices", [{"choices": []}, {"choices": None}, {}], ids=["empty", "null", "none"])
def test_a_legacy_completion_without_a_choice_is_a_failure(ask, choices) -> None:
    assert ask({"id": "c", **choices}, api="text").failure.type == "invalid_response"


def response(**fields: object) -> dict[str, object]:
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
    return {"id": "r", "object": "response", "status": "completed", "output": [item], **fields}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "fields", [{}, {"model": None}, {"usage": None}, {"incomplete_details": None, "error": None}], ids=str
)
def test_a_response_that_leaves_things_out_is_recorded(ask, fields, streamed) -> None:
    whole = response(**fields)
    span = ask({"type": "response.completed", "response": whole} if streamed else whole, streamed=streamed, api="r")
    assert (span.generation.response, span.generation.finish_reason, span.failure) == (SAID, "stop", None)


def test_a_response_that_was_filtered_keeps_its_reason_and_usage(ask) -> None:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    details = {"reason": "content_filter"}
    answer = response(output=None, status="incomplete", incomplete_details=details, usage=usage)
    span = ask(answer, api="responses")
    assert (span.generation.finish_reason, span.generation.usage.output_tokens) == ("content_filter", 2)


def test_an_item_that_nobody_knows_is_kept(ask) -> None:
    item = {"type": "vendor_call", "id": "v", "what": [1]}
    assert ask(response(output=[item]), api="responses").generation.response["items"] == [item]


def test_a_responses_stream_that_ends_in_an_error_is_a_failure_with_what_was_said(ask) -> None:
    span = ask(
        {"type": "response.created", "response": response(output=[], status="in_progress")},
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "m", "delta": "He"},
        {"type": "error", "code": "server_error", "message": "the engine died", "param": None},
        streamed=True,
        api="responses",
    )
    assert span.generation.response["content"] == "He"
    assert (span.failure.type, span.failure.fault) == ("engine_unavailable", "infrastructure")
