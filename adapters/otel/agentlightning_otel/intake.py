"""How requests come in: so many bytes at once, the large ones one after another, so that nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import Request

from agentlightning_otel.errors import PayloadError
from agentlightning_otel.wire import LARGEST, unpack

T = TypeVar("T")
R = TypeVar("R")

MOST_BYTES = 2 * LARGEST
"""Of bodies that have come and are not recorded yet."""
LARGE = 4 * 1024**2
"""Bytes from which on a body, unpacked, waits for its turn."""
BODY_SECONDS = 30.0
"""How long a client may take to send a body."""


class Intake:
    """Bodies of requests, bounded in bytes."""

    def __init__(self) -> None:
        self._free = MOST_BYTES
        self._small = asyncio.Semaphore(1)
        self._large = asyncio.Semaphore(1)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, as it was sent; its bytes count until the context ends.

        Raises `PayloadError`: 413 where it is too large, 408 where it does not come, and 503 where too much waits.
        """
        body = bytearray()
        try:
            await self._receive(request, body)
            yield bytes(body)
        finally:
            self._free += len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    self._free -= len(chunk)
                    body += chunk
                    if len(body) > LARGEST:
                        raise PayloadError(f"the body is larger than {LARGEST // 1024**2} MiB", 413)
                    if self._free < 0:
                        waiting = f"more than {MOST_BYTES // 1024**2} MiB wait to be recorded"
                        raise PayloadError(f"{waiting}; send it again later", 503)
        except TimeoutError:
            raise PayloadError(f"the body did not come within {BODY_SECONDS:g} s", 408) from None

    async def record(
        self, body: bytes, encoding: str, read: Callable[[bytes], T], keep: Callable[[T], Awaitable[R]]
    ) -> R:
        """What ``keep`` makes of what ``read``, in a thread, makes of the unpacked body. Raises `PayloadError`.

        One body is read at a time, for Python runs one thread at a time; and beside it one large one, until it is kept.
        """
        if len(body) < LARGE:
            async with self._small:
                try:
                    found = await asyncio.to_thread(_read, body, encoding, min(LARGE, LARGEST), read)
                except PayloadError as error:
                    if error.status != 413:
                        raise
                    found = None
            if found is not None:
                return await keep(found)
        async with self._large:
            return await keep(await asyncio.to_thread(_read, body, encoding, LARGEST, read))


def _read(body: bytes, encoding: str, most: int, read: Callable[[bytes], T]) -> T:
    return read(unpack(body, encoding, most))
