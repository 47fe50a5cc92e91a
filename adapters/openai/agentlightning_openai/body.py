"""Bodies that the agent reads itself (``with_streaming_response``, a raw response it never parses), and the
moment at which any body is closed."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from agentlightning_openai.internals import construct, events_in, http_library
from agentlightning_openai.request import Operation
from agentlightning_openai.response import Answer, read
from agentlightning_openai.stream import JOINERS

logger = logging.getLogger(__name__)


class BodyWatch:
    """What has been read of an HTTP response's body, and a call when it is closed.

    ``keep`` False keeps nothing: somebody else reads what the body says.
    """

    def __init__(self, response: Any, closed: Callable[[], None]) -> None:
        self.keep = True
        self._closed = closed
        self._response = response
        self._parts: list[bytes] = []
        library = http_library(response)
        sync, asynchronous = _stream_types(library)
        kind = asynchronous if isinstance(response.stream, library.AsyncByteStream) else sync
        response.stream = kind(response.stream, self)

    def take(self, part: bytes) -> None:
        """A piece of the body, as it came over the wire."""
        self._parts.append(part)

    def closed(self) -> None:
        """The body was read to its end, or given up."""
        self._closed()

    def answer(self, operation: Operation) -> Answer:
        """What was read, parsed. Raises what parsing half a body raises."""
        whole = type(self._response)(
            self._response.status_code, headers=self._response.headers, content=b"".join(self._parts)
        )
        return answer_in(whole, operation)


def answer_in(response: Any, operation: Operation) -> Answer:
    """The answer in an HTTP response whose body is there, a stream of events or one object."""
    from openai.types import Completion
    from openai.types.chat import ChatCompletionChunk
    from openai.types.responses import ResponseStreamEvent

    if response.headers.get("content-type", "").startswith("text/event-stream"):
        kinds: dict[str, Any] = {"chat": ChatCompletionChunk, "text_completion": Completion}
        kind = kinds.get(operation, ResponseStreamEvent)
        joiner = JOINERS[operation]()
        for event in events_in(response.content):
            try:
                joiner.add(construct(kind, event.json()))
            except Exception as error:  # noqa: BLE001 - a body that was cut off; what came before counts
                logger.debug("an event of a raw body could not be read: %s", error)
                break
        return joiner.answer()
    return read_json(response.json(), operation)


def read_json(data: Any, operation: Operation) -> Answer:
    """An answer that the client has not parsed."""
    from openai.types import Completion, CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion
    from openai.types.responses import Response

    kinds: dict[str, Any] = {"chat": ChatCompletion, "text_completion": Completion, "responses": Response}
    return read(construct(kinds.get(operation, CreateEmbeddingResponse), data), operation)


@functools.cache
def _stream_types(library: Any) -> tuple[type, type]:
    class Watched(library.SyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, watch: BodyWatch) -> None:
            self._inner, self._watch = inner, watch

        def __iter__(self) -> Iterator[bytes]:
            return self._kept() if self._watch.keep else iter(self._inner)

        def _kept(self) -> Iterator[bytes]:
            for part in self._inner:
                self._watch.take(part)
                yield part

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                self._watch.closed()

    class WatchedAsync(library.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, watch: BodyWatch) -> None:
            self._inner, self._watch = inner, watch

        def __aiter__(self) -> AsyncIterator[bytes]:
            # The client's own generator where that will do: one around it is one more to be closed at the right time.
            return self._kept() if self._watch.keep else aiter(self._inner)

        async def _kept(self) -> AsyncIterator[bytes]:
            async for part in self._inner:
                self._watch.take(part)
                yield part

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._watch.closed()

    return Watched, WatchedAsync
