"""Bodies of requests: bounded, each and all together, and read to their end also where they are not wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from agentlightning_server.errors import RequestError
from agentlightning_server.wire import MAX_BODY_BYTES

MAX_WAITING_BYTES = 4 * MAX_BODY_BYTES
"""Of bodies that have come and are not dealt with yet."""
BODY_SECONDS = 60.0
"""How long a client may take to send a body."""
DRAINED_BYTES = 2 * MAX_BODY_BYTES
"""Of a body that is refused, and read all the same: a client that sends does not hear why it was refused."""


class Bodies:
    """Reads bodies; keeps count of those that are held."""

    def __init__(self) -> None:
        self._free_bytes = MAX_WAITING_BYTES

    @asynccontextmanager
    async def of(self, request: Request, limit: int | None = None) -> AsyncIterator[bytes]:
        """The body, of ``limit`` bytes (`MAX_BODY_BYTES`) at most, which count until the context ends.

        Raises `RequestError`: 413 where it is too large, 408 where it does not come, 503 where too much waits.
        """
        body = bytearray()
        try:
            await self._receive(request, body, MAX_BODY_BYTES if limit is None else limit)
            yield bytes(body)
        finally:
            self._free_bytes += len(body)

    async def drain(self, request: Request) -> None:
        """Reads a body that nobody looks at."""
        size = 0
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > DRAINED_BYTES:
                    return

    async def _receive(self, request: Request, body: bytearray, limit: int) -> None:
        refused: RequestError | None = None
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if refused is None and size > limit:
                        refused = RequestError(413, f"the body is larger than {limit // 1024} KiB: send less at once")
                    elif refused is None and self._free_bytes < len(chunk):
                        refused = RequestError(503, f"more than {MAX_WAITING_BYTES // 1024**2} MiB of requests wait")
                    if refused is None:
                        self._free_bytes -= len(chunk)
                        body += chunk
                    elif size > DRAINED_BYTES:
                        break
        except TimeoutError:
            raise RequestError(408, f"the body did not come within {BODY_SECONDS:g} s") from None
        if refused is not None:
            raise refused
