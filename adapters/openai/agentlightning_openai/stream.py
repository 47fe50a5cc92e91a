"""Streams: chunks joined into an answer while the agent reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, TypeVar

from agentlightning_openai import responses_api
from agentlightning_openai.response import Answer, Choice, logprobs_of, read_response, text_choice, usage_of

T = TypeVar("T")


class ChatJoiner:
    """Joins ``ChatCompletionChunk`` objects."""

    def __init__(self) -> None:
        self._whole = Answer()
        self._parts: dict[int, _Parts] = {}

    def add(self, chunk: Any) -> bool:
        """Takes a chunk; whether it says something (content, a tool call, reasoning, a refusal)."""
        whole, extra = self._whole, chunk.model_extra
        whole.id, whole.model = chunk.id or whole.id, chunk.model or whole.model
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            whole.usage = usage_of(usage)
        if extra:
            whole.prompt_ids = extra.get("prompt_token_ids") or whole.prompt_ids
            whole.policy_version = extra.get("policy_version", whole.policy_version)
        said = False
        for choice in chunk.choices or ():
            parts = self._parts.get(choice.index)
            if parts is None:
                parts = self._parts[choice.index] = _Parts()
            said = parts.add(choice) or said
        return said

    def answer(self) -> Answer:
        """What was seen so far."""
        self._whole.choices = [self._parts[index].choice() for index in sorted(self._parts)]
        return self._whole


class _Parts:
    """What the chunks of one choice said."""

    def __init__(self) -> None:
        self._role = "assistant"
        self._texts: dict[str, list[str]] = {"content": []}
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._token_ids: list[int] | None = None
        self._logprobs: list[float] | None = None

    def add(self, choice: Any) -> bool:
        self._finish_reason = choice.finish_reason or self._finish_reason
        token_ids = (choice.model_extra or {}).get("token_ids")
        if token_ids is not None:
            self._token_ids = self._token_ids or []
            self._token_ids.extend(token_ids)
        logprobs = logprobs_of(choice)
        if logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs.extend(logprobs)
        return self._add_delta(choice.delta) if choice.delta is not None else False

    def _add_delta(self, delta: Any) -> bool:
        self._role = getattr(delta, "role", None) or self._role
        said = False
        for name in ("content", "refusal"):
            said = self._add_text(name, getattr(delta, name, None)) or said
        for name, value in (delta.model_extra or {}).items():
            if isinstance(value, str):
                said = self._add_text(name, value) or said
        for call in getattr(delta, "tool_calls", None) or ():
            said = True
            self._add_call(call)
        return said

    def _add_text(self, name: str, text: str | None) -> bool:
        if not text:
            return False
        self._texts.setdefault(name, []).append(text)
        return True

    def _add_call(self, piece: Any) -> None:
        call = self._calls.setdefault(
            piece.index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
        )
        call["id"] = piece.id or call["id"]
        if piece.function is not None:
            call["function"]["name"] += piece.function.name or ""
            call["function"]["arguments"] += piece.function.arguments or ""

    def choice(self) -> Choice:
        message: dict[str, Any] = {"role": self._role}
        for name, texts in self._texts.items():
            message[name] = "".join(texts) if texts else None
        if self._calls:
            message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
        return Choice(message, self._finish_reason, self._token_ids, self._logprobs)


class TextJoiner:
    """Joins the chunks of a legacy completion, which are ``Completion`` objects themselves."""

    def __init__(self) -> None:
        self._whole = Answer()
        self._choices: dict[int, Choice] = {}

    def add(self, chunk: Any) -> bool:
        """Takes a chunk; whether it says something."""
        whole = self._whole
        whole.id, whole.model = chunk.id or whole.id, chunk.model or whole.model
        whole.usage = usage_of(getattr(chunk, "usage", None)) or whole.usage
        whole.policy_version = (chunk.model_extra or {}).get("policy_version", whole.policy_version)
        for part in chunk.choices or ():
            new, known = text_choice(part), self._choices.get(part.index)
            if known is None or known.message is None:
                self._choices[part.index] = new
                continue
            known.message["content"] += part.text
            known.finish_reason = new.finish_reason or known.finish_reason
            known.token_ids = _longer(known.token_ids, new.token_ids)
            known.logprobs = _longer(known.logprobs, new.logprobs)
        return any(part.text for part in chunk.choices or ())

    def answer(self) -> Answer:
        """What was seen so far."""
        self._whole.choices = [self._choices[index] for index in sorted(self._choices)]
        return self._whole


def _longer(known: list[T] | None, new: list[T] | None) -> list[T] | None:
    return known if new is None else [*(known or ()), *new]


class ResponseJoiner:
    """Joins the events of a responses stream: the last one carries the whole answer, and a stream that was
    left early has its finished items and the text of the one that was being written."""

    def __init__(self) -> None:
        self._whole: Answer | None = None
        self._begun: Any = None
        self._items: list[dict[str, Any]] = []
        self._text: list[str] = []

    def add(self, event: Any) -> bool:
        """Takes an event; whether it says something."""
        kind = event.type
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self._whole = read_response(event.response)
        elif kind == "response.created":
            self._begun = event.response
        elif kind == "response.output_item.done":
            self._items.append(event.item.to_dict())
            self._text.clear()
        elif kind == "response.output_text.delta":
            self._text.append(event.delta)
        return str(kind).endswith(".delta")

    def answer(self) -> Answer:
        """What was seen so far."""
        if self._whole is not None:
            return self._whole
        items = [*self._items, {"type": "message", "role": "assistant", "content": "".join(self._text)}]
        message = responses_api.assistant_message(items)
        begun = self._begun
        return Answer([Choice(message)], id=getattr(begun, "id", None), model=getattr(begun, "model", None))


Joiner = ChatJoiner | TextJoiner | ResponseJoiner
JOINERS: dict[str, type[Joiner]] = {"chat": ChatJoiner, "text_completion": TextJoiner, "responses": ResponseJoiner}


class Reader(Protocol):
    """Who is told of a stream's chunks. ``reading`` says whether the next one is being waited for."""

    reading: bool

    def shows(self, chunk: Any) -> bool: ...

    def fail(self, error: BaseException) -> None: ...

    def end_of_stream(self) -> None: ...

    def left(self) -> None: ...


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
        call.reading = True
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
        call.reading = True
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
