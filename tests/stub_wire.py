"""The stub server's answers as the OpenAI APIs write them: chat, text completions, responses, embeddings; whole and as
streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from stub_answers import Answer, Choice, Received


def whole(request: Received, answer: Answer, number: int) -> dict[str, Any]:
    """The body of an answer, in the shape of the API that was asked."""
    if "/embeddings" in request.path:
        return {
            "object": "list",
            "model": request.json["model"],
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
    if "/chat/" not in request.path:
        return _response(request, answer, number)
    return _chat(request, answer, number)


def events(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer."""
    if "/chat/" in request.path:
        return _chat_chunks(request, answer, number)
    return _response_events(request, answer, number)


def _exact(request: Received, answer: Answer) -> bool:
    return bool(request.json.get("return_token_ids")) if answer.exact is None else answer.exact


def _logprobs(request: Received, choice: Choice, logprobs: list[float]) -> dict[str, Any] | None:
    if not request.json.get("logprobs"):
        return None
    return {"content": [{"token": "t", "logprob": value, "bytes": None, "top_logprobs": []} for value in logprobs]}


def _usage(answer: Answer) -> dict[str, int]:
    written = sum(len(choice.token_ids or ()) for choice in answer.choices)
    read = len(answer.prompt_token_ids)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _calls(choice: Choice) -> list[dict[str, Any]]:
    return [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in choice.calls
    ]


def _extra(answer: Answer, exact: bool) -> dict[str, Any]:
    extra: dict[str, Any] = {"prompt_token_ids": answer.prompt_token_ids} if exact else {}
    if exact and answer.logprobs_mode is not None:
        extra["logprobs_mode"] = answer.logprobs_mode
    if answer.policy_version is not None:
        extra["policy_version"] = answer.policy_version
    return extra


def _chat(request: Received, answer: Answer, number: int) -> dict[str, Any]:
    exact = _exact(request, answer)
    choices = []
    for index, choice in enumerate(answer.choices):
        message: dict[str, Any] = {"role": "assistant", "content": choice.content, "refusal": choice.refusal}
        if choice.calls:
            message["tool_calls"] = _calls(choice)
        if choice.reasoning is not None:
            message["reasoning_content"] = choice.reasoning
        row = {"index": index, "message": message, "finish_reason": choice.finish_reason}
        row["logprobs"] = _logprobs(request, choice, choice.logprobs or [])
        if exact:
            row["token_ids"] = choice.token_ids
        choices.append(row)
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1700000000,
        "model": request.json["model"],
        "choices": choices,
        "usage": _usage(answer),
        **_extra(answer, exact),
    }


def _pieces(answer: Answer) -> Iterator[tuple[int, dict[str, Any], slice]]:
    """Deltas with the tokens they stand for: two characters at a time, calls in three pieces."""
    for index, choice in enumerate(answer.choices):
        size = len(choice.token_ids or ())
        if choice.reasoning is not None:
            yield index, {"reasoning_content": choice.reasoning}, slice(0, 0)
        if choice.refusal is not None:
            yield index, {"refusal": choice.refusal}, slice(0, 0)
        content = choice.content or ""
        for start in range(0, len(content), 2):
            stop = size if start + 2 >= len(content) else start + 2
            yield index, {"content": content[start : start + 2]}, slice(start, stop)
        for place, call in enumerate(choice.calls):
            half = len(call.arguments) // 2
            head = {"name": call.name, "arguments": ""}
            yield index, {"tool_calls": [{"index": place, "id": call.id, "type": "function", "function": head}]}, _NONE
            for part, tokens in ((call.arguments[:half], slice(0, half)), (call.arguments[half:], slice(half, size))):
                taken = tokens if not content and place == 0 else _NONE
                yield index, {"tool_calls": [{"index": place, "function": {"arguments": part}}]}, taken


_NONE = slice(0, 0)


def _chat_chunks(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    exact = _exact(request, answer)
    wants_usage = (request.json.get("stream_options") or {}).get("include_usage")

    def chunk(choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        usage = {"usage": None} if wants_usage else {}
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1700000000}
        return {**head, "model": request.json["model"], "choices": choices, **usage, **more}

    def row(index: int, delta: dict[str, Any], tokens: slice, finish: str | None = None) -> dict[str, Any]:
        choice = answer.choices[index]
        made: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
        if tokens.stop > tokens.start:
            made["logprobs"] = _logprobs(request, choice, (choice.logprobs or [])[tokens])
            if exact:
                made["token_ids"] = (choice.token_ids or [])[tokens]
        return made

    first = [row(index, {"role": "assistant", "content": ""}, _NONE) for index in range(len(answer.choices))]
    yield chunk(first, **_extra(answer, exact))
    for index, delta, tokens in _pieces(answer):
        yield chunk([row(index, delta, tokens)])
    for index, choice in enumerate(answer.choices):
        yield chunk([row(index, {}, _NONE, choice.finish_reason)])
    if wants_usage:
        yield chunk([], usage=_usage(answer))


def _response(request: Received, answer: Answer, number: int, status: str = "completed") -> dict[str, Any]:
    choice = answer.choices[0]
    exact = _exact(request, answer)
    if choice.finish_reason == "length" and status == "completed":
        status = "incomplete"
    usage = _usage(answer)
    body: dict[str, Any] = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1700000000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": request.json.get("instructions"),
        "model": request.json["model"],
        "output": _items(choice) if status != "in_progress" else [],
        "parallel_tool_calls": True,
        "temperature": request.json.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": request.json.get("tools", []),
        "top_p": 1.0,
        "usage": None,
        **_extra(answer, exact),
    }
    if status != "in_progress":
        body["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }
        if exact:
            body["token_ids"], body["logprobs"] = choice.token_ids, choice.logprobs
    return body


def _items(choice: Choice) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if choice.reasoning is not None:
        summary = [{"type": "summary_text", "text": choice.reasoning}]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary})
    if choice.content is not None:
        part = {"type": "output_text", "text": choice.content, "annotations": []}
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]})
    if choice.refusal is not None:
        refusal = {"type": "refusal", "refusal": choice.refusal}
        items.append(
            {"type": "message", "id": "msg_2", "role": "assistant", "status": "completed", "content": [refusal]}
        )
    for place, call in enumerate(choice.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{place}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    return items


def _response_events(request: Received, answer: Answer, number: int) -> Iterator[dict[str, Any]]:
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(numbers), **fields}

    started = _response(request, answer, number, "in_progress")
    yield event("response.created", response=started)
    for place, item in enumerate(_items(answer.choices[0])):
        where = {"output_index": place, "item_id": item["id"]}
        if item["type"] == "message" and "text" in item["content"][0]:
            empty = {**item, "content": [], "status": "in_progress"}
            yield event("response.output_item.added", output_index=place, item=empty)
            part = {"type": "output_text", "text": "", "annotations": []}
            yield event("response.content_part.added", content_index=0, part=part, **where)
            said = item["content"][0]["text"]
            for start in range(0, len(said), 2):
                delta = said[start : start + 2]
                yield event("response.output_text.delta", content_index=0, delta=delta, logprobs=[], **where)
            yield event("response.output_text.done", content_index=0, text=said, logprobs=[], **where)
            yield event("response.content_part.done", content_index=0, part=item["content"][0], **where)
        elif item["type"] == "function_call":
            empty = {**item, "arguments": "", "status": "in_progress"}
            yield event("response.output_item.added", output_index=place, item=empty)
            yield event("response.function_call_arguments.delta", delta=item["arguments"], **where)
            yield event("response.function_call_arguments.done", arguments=item["arguments"], **where)
        else:
            yield event("response.output_item.added", output_index=place, item=item)
        yield event("response.output_item.done", output_index=place, item=item)
    whole = _response(request, answer, number)
    yield event(f"response.{whole['status']}", response=whole)
