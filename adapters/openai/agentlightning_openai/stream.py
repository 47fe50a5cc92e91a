"""Streams: chunks joined into an answer while the agent reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar

from agentlightning.records import Failure
from agentlightning_openai import responses_api
from agentlightning_openai.deltas import MessageJoiner, fields_of, plain
from agentlightning_openai.response import (
    Answer,
    Choice,
    failure_in,
    finish_reason_of,
    logprobs_in,
    logprobs_of,
    read_response,
    usage_of,
)

T = TypeVar("T")


class CompletionJoiner:
    """Joins ``ChatCompletionChunk`` objects, or the chunks of a legacy completion, which are ``Completion`` objects."""

    def __init__(self) -> None:
        self._answer = Answer()
        self._choices: dict[int, _ChoiceJoiner] = {}

    def add(self, chunk: Any) -> bool:
        """Takes a chunk; whether it says something (content, a tool call, reasoning, a refusal)."""
        answer, fields = self._answer, fields_of(chunk)
        answer.id, answer.model = fields.get("id") or answer.id, fields.get("model") or answer.model
        answer.usage = usage_of(fields.get("usage")) or answer.usage
        answer.prompt_ids = fields.get("prompt_token_ids") or answer.prompt_ids
        answer.policy_version = fields.get("policy_version", answer.policy_version)
        answer.logprobs_mode = fields.get("logprobs_mode", answer.logprobs_mode)
        says = False
        for choice in fields.get("choices") or ():
            parts = fields_of(choice)
            index = parts.get("index")
            index = index if isinstance(index, int) else 0
            joiner = self._choices.get(index)
            if joiner is None:
                joiner = self._choices[index] = _ChoiceJoiner()
            says = joiner.add(choice, parts) or says
        return says

    def answer(self) -> Answer:
        """What was seen so far."""
        self._answer.choices = [self._choices[index].choice() for index in sorted(self._choices)]
        return self._answer


class _ChoiceJoiner:
    """What the chunks of one choice said."""

    def __init__(self) -> None:
        self._message = MessageJoiner()
        self._choice = Choice()
        self._is_text = False

    def add(self, choice: Any, fields: dict[str, Any]) -> bool:
        known = self._choice
        known.finish_reason = finish_reason_of(fields) or known.finish_reason
        known.token_ids = _longer(known.token_ids, fields.get("token_ids"))
        known.logprobs = _longer(known.logprobs, logprobs_of(choice))
        known.prompt_ids = fields.get("prompt_token_ids") or known.prompt_ids
        self._is_text = self._is_text or "text" in fields
        return self._message.add(fields.get("delta") if not self._is_text else {"content": fields.get("text")})

    def choice(self) -> Choice:
        message = self._message.message()
        if self._is_text:
            message["content"] = message["content"] or ""
        self._choice.message = message
        return self._choice


def _longer(known: list[T] | None, new: Any) -> list[T] | None:
    if not isinstance(new, list):
        return known
    if known is None:
        return list(new)
    known.extend(new)
    return known


class ResponseJoiner:
    """Joins the events of a responses stream: the last one carries the whole answer, and a stream that was left early
    has its finished items and what was said of those that were being written.

    Token ids, for which that API has no place, are read from ``prompt_token_ids`` of the response that was created, and
    from ``token_ids`` and ``logprobs`` of each delta.
    """

    def __init__(self) -> None:
        self._ended: Answer | None = None
        self._begun: dict[str, Any] = {}
        self._items: dict[int, dict[str, Any]] = {}
        self._token_ids: list[int] | None = None
        self._logprobs: list[float] | None = None

    def add(self, event: Any) -> bool:
        """Takes an event; whether it says something."""
        fields = fields_of(event)
        kind, index = str(fields.get("type")), fields.get("output_index") or 0
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._ended = read_response(fields.get("response"))
        elif kind == "response.created":
            self._begun = dict(fields_of(fields.get("response")))
        elif kind == "error":
            self._ended = self._so_far(failure_in(event))
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._items[index] = plain(fields.get("item"))
        elif kind in _WRITTEN_BY:
            self._token_ids = _longer(self._token_ids, fields.get("token_ids"))
            self._logprobs = _longer(self._logprobs, logprobs_in(fields.get("logprobs")))
            item = self._items.setdefault(index, {"type": "message", "role": "assistant"})
            _write(item, *_WRITTEN_BY[kind], fields.get("delta") or "")
        return kind.endswith(".delta")

    def answer(self) -> Answer:
        """What was seen so far."""
        return self._ended if self._ended is not None else self._so_far()

    def _so_far(self, failure: Failure | None = None) -> Answer:
        begun = self._begun
        message = responses_api.assistant_message(self._items[index] for index in sorted(self._items))
        return Answer(
            choices=[Choice(message, None, self._token_ids, self._logprobs)] if begun or self._items else [],
            id=begun.get("id"),
            model=begun.get("model"),
            prompt_ids=begun.get("prompt_token_ids"),
            policy_version=begun.get("policy_version"),
            logprobs_mode=begun.get("logprobs_mode"),
            failure=failure,
        )


# Which field of an item a delta writes; in which parts of it, where that is a list.
_WRITTEN_BY = {
    "response.output_text.delta": ("content", "output_text", "text"),
    "response.refusal.delta": ("content", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_text", "text"),
    "response.function_call_arguments.delta": ("arguments", "", ""),
    "response.custom_tool_call_input.delta": ("input", "", ""),
}


def _write(item: dict[str, Any], field: str, part_type: str, part_field: str, text: str) -> None:
    if not part_type:
        item[field] = (item.get(field) or "") + text
        return
    parts = item[field] = item.get(field) or []
    if not parts or parts[-1].get("type") != part_type:
        parts.append({"type": part_type, part_field: ""})
    parts[-1][part_field] += text


Joiner = CompletionJoiner | ResponseJoiner
JOINERS: dict[str, type[Joiner]] = {
    "chat": CompletionJoiner,
    "text_completion": CompletionJoiner,
    "responses": ResponseJoiner,
}


class Reader(Protocol):
    """Who is told of a stream's chunks. ``reading`` says whether the next one is being waited for."""

    reading: bool

    def waits_for_chunk(self) -> None: ...

    def take_chunk(self, chunk: Any) -> bool: ...

    def fail(self, error: BaseException) -> None: ...

    def end_of_stream(self) -> None: ...

    def reader_left(self) -> None: ...


class _Watched:
    """The chunks of a stream for the agent, each of which ``call`` takes before.

    No generator: one that is left early is closed at a time, in a thread and in a task of the collector's choosing,
    and an asynchronous one raises there into the log of the loop.
    """

    def __init__(self, call: Reader, chunks: Any) -> None:
        self._call, self._chunks = call, chunks

    def __enter__(self) -> None:
        self._call.waits_for_chunk()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StopIteration | StopAsyncIteration):
            self._call.end_of_stream()
        elif error is not None and not isinstance(error, GeneratorExit):  # the coroutine that waited was let go
            self._call.fail(error)
        self._call.reading = False

    def __del__(self) -> None:
        self._call.reader_left()


class Watched(_Watched):
    """A synchronous stream's."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self:
            while True:
                chunk = next(self._chunks)
                if self._call.take_chunk(chunk):
                    return chunk


class AsyncWatched(_Watched):
    """An asynchronous stream's."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        with self:
            while True:
                chunk = await anext(self._chunks)
                if self._call.take_chunk(chunk):
                    return chunk
