"""Streams: chunks joined into an answer while the agent reads them."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
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
    text_choice,
    usage_of,
)

T = TypeVar("T")


class ChatJoiner:
    """Joins ``ChatCompletionChunk`` objects."""

    def __init__(self) -> None:
        self._whole = Answer()
        self._choices: dict[int, _ChoiceJoiner] = {}

    def add(self, chunk: Any) -> bool:
        """Takes a chunk; whether it says something (content, a tool call, reasoning, a refusal)."""
        whole, fields = self._whole, fields_of(chunk)
        whole.id, whole.model = fields.get("id") or whole.id, fields.get("model") or whole.model
        whole.usage = usage_of(fields.get("usage")) or whole.usage
        whole.prompt_ids = fields.get("prompt_token_ids") or whole.prompt_ids
        whole.policy_version = fields.get("policy_version", whole.policy_version)
        says = False
        for choice in fields.get("choices") or ():
            joiner = self._choices.get(_index(choice))
            if joiner is None:
                joiner = self._choices[_index(choice)] = _ChoiceJoiner()
            says = joiner.add(choice) or says
        return says

    def answer(self) -> Answer:
        """What was seen so far."""
        self._whole.choices = [self._choices[index].choice() for index in sorted(self._choices)]
        return self._whole


def _index(choice: Any) -> int:
    index = fields_of(choice).get("index")
    return index if isinstance(index, int) else 0


class _ChoiceJoiner:
    """What the chunks of one choice said."""

    def __init__(self) -> None:
        self._message = MessageJoiner()
        self._finish_reason: str | None = None
        self._token_ids: list[int] | None = None
        self._logprobs: list[float] | None = None

    def add(self, choice: Any) -> bool:
        fields = fields_of(choice)
        self._finish_reason = finish_reason_of(fields) or self._finish_reason
        self._token_ids = _longer(self._token_ids, fields.get("token_ids"))
        self._logprobs = _longer(self._logprobs, logprobs_of(choice))
        return self._message.add(fields.get("delta"))

    def choice(self) -> Choice:
        return Choice(self._message.message(), self._finish_reason, self._token_ids, self._logprobs)


class TextJoiner:
    """Joins the chunks of a legacy completion, which are ``Completion`` objects themselves."""

    def __init__(self) -> None:
        self._whole = Answer()
        self._choices: dict[int, Choice] = {}

    def add(self, chunk: Any) -> bool:
        """Takes a chunk; whether it says something."""
        whole, fields = self._whole, fields_of(chunk)
        whole.id, whole.model = fields.get("id") or whole.id, fields.get("model") or whole.model
        whole.usage = usage_of(fields.get("usage")) or whole.usage
        whole.policy_version = fields.get("policy_version", whole.policy_version)
        says = False
        for part in fields.get("choices") or ():
            new, known = text_choice(part), self._choices.get(_index(part))
            says = says or bool(new.message and new.message["content"])
            if known is None or known.message is None:
                self._choices[_index(part)] = new
                continue
            known.message["content"] += (new.message or {}).get("content") or ""
            known.finish_reason = new.finish_reason or known.finish_reason
            known.token_ids = _longer(known.token_ids, new.token_ids)
            known.logprobs = _longer(known.logprobs, new.logprobs)
        return says

    def answer(self) -> Answer:
        """What was seen so far."""
        self._whole.choices = [self._choices[index] for index in sorted(self._choices)]
        return self._whole


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
        kind, place = str(fields.get("type")), fields.get("output_index") or 0
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._ended = read_response(event.response)
        elif kind == "response.created":
            self._begun = fields_of(event.response)
        elif kind == "error":
            self._ended = self._so_far(failure_in(event))
        elif kind in ("response.output_item.added", "response.output_item.done"):
            self._items[place] = plain(event.item)
        elif kind in _WRITTEN_BY:
            self._token_ids = _longer(self._token_ids, fields.get("token_ids"))
            self._logprobs = _longer(self._logprobs, logprobs_in(fields.get("logprobs")))
            item = self._items.setdefault(place, {"type": "message", "role": "assistant"})
            _write(item, *_WRITTEN_BY[kind], fields.get("delta") or "")
        return kind.endswith(".delta")

    def answer(self) -> Answer:
        """What was seen so far."""
        return self._ended if self._ended is not None else self._so_far()

    def _so_far(self, failure: Failure | None = None) -> Answer:
        begun = self._begun
        message = responses_api.assistant_message(self._items[place] for place in sorted(self._items))
        return Answer(
            choices=[Choice(message, None, self._token_ids, self._logprobs)] if begun or self._items else [],
            id=begun.get("id"),
            model=begun.get("model"),
            prompt_ids=begun.get("prompt_token_ids"),
            policy_version=begun.get("policy_version"),
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


Joiner = ChatJoiner | TextJoiner | ResponseJoiner
JOINERS: dict[str, type[Joiner]] = {"chat": ChatJoiner, "text_completion": TextJoiner, "responses": ResponseJoiner}


class Reader(Protocol):
    """Who is told of a stream's chunks. ``reading`` says whether the next one is being waited for."""

    reading: bool

    def waits_for_chunk(self) -> None: ...

    def shows(self, chunk: Any) -> bool: ...

    def fail(self, error: BaseException) -> None: ...

    def end_of_stream(self) -> None: ...

    def left(self) -> None: ...


def chunks_of(stream: Any) -> Any:
    """What a stream of the client's reads, by an iterator that does not refer to the stream itself.

    The client's own does. A stream that is left is then closed by the collector of cycles, in the middle of anything:
    also where the connection pool holds its lock, which closing a stream takes as well, and the thread waits for
    itself for ever. Without the cycle it is closed where the agent lets it go.
    """
    apart = copy.copy(stream)
    apart._iterator = None
    return apart.__stream__()


class Watched:
    """The chunks of a stream for the agent, each shown to ``call`` before.

    No generator: one that is left early is closed at a time, in a thread and in a task of the collector's choosing,
    and an asynchronous one raises there into the log of the loop.
    """

    def __init__(self, call: Reader, chunks: Iterator[Any]) -> None:
        self._call, self._chunks = call, chunks

    def __iter__(self) -> Watched:
        return self

    def __next__(self) -> Any:
        call = self._call
        call.waits_for_chunk()
        try:
            while True:
                chunk = next(self._chunks)
                if call.shows(chunk):
                    return chunk
        except StopIteration:
            call.end_of_stream()
            raise
        except BaseException as error:
            call.fail(error)
            raise
        finally:
            call.reading = False

    def __del__(self) -> None:
        self._call.left()


class AsyncWatched:
    """The same for an asynchronous stream."""

    def __init__(self, call: Reader, chunks: AsyncIterator[Any]) -> None:
        self._call, self._chunks = call, chunks

    def __aiter__(self) -> AsyncWatched:
        return self

    async def __anext__(self) -> Any:
        call = self._call
        call.waits_for_chunk()
        try:
            while True:
                chunk = await anext(self._chunks)
                if call.shows(chunk):
                    return chunk
        except StopAsyncIteration:
            call.end_of_stream()
            raise
        except GeneratorExit:
            # The coroutine that waited for the chunk was let go.
            raise
        except BaseException as error:
            call.fail(error)
            raise
        finally:
            call.reading = False

    def __del__(self) -> None:
        self._call.left()
