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

MOST_BYTES = 2 * LARGEST
"""Of bodies that have come and are not recorded yet."""
LARGE = 4 * 1024**2
"""Bytes from which on a body, unpacked, waits for its turn."""
SMALL_AT_ONCE = 4
BODY_SECONDS = 30.0
"""How long a client may take to send a body."""


class Intake:
    """Bodies of requests, bounded in bytes."""

    def __init__(self) -> None:
        self._free = MOST_BYTES
        self._small = asyncio.Semaphore(SMALL_AT_ONCE)
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

    async def record(self, body: bytes, encoding: str, record: Callable[[bytes], Awaitable[T]]) -> T:
        """What ``record`` makes of the unpacked body, when it is its turn. Raises `PayloadError`."""
        if len(body) < LARGE:
            async with self._small:
                try:
                    unpacked = await asyncio.to_thread(unpack, body, encoding, min(LARGE, LARGEST))
                except PayloadError as error:
                    if error.status != 413:
                        raise
                else:
                    return await record(unpacked)
        async with self._large:
            return await record(await asyncio.to_thread(unpack, body, encoding, LARGEST))
