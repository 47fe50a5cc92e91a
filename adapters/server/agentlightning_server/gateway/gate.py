"""The gate that every model call passes: closed while weights change, so that none is under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

logger = logging.getLogger(__name__)


class Gate:
    """Lets calls through until it is paused; those that come then wait until it is resumed.

    A pause lapses by itself, since whoever asked for it may have died: so every wait has an end.
    """

    def __init__(self) -> None:
        self.in_flight = 0
        self._open = asyncio.Event()
        self._open.set()
        self._drained = asyncio.Event()
        self._drained.set()
        self._lapse: asyncio.TimerHandle | None = None

    @property
    def paused(self) -> bool:
        return not self._open.is_set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """A call is under way inside the block, which begins when the gate is open."""
        await self._open.wait()
        self.in_flight += 1
        self._drained.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._drained.set()

    async def pause(self, *, timeout: float, lapses_after: float) -> None:
        """Lets no new call through, for ``lapses_after`` seconds at most; returns when none is under way any more, or
        when ``timeout`` seconds have passed (`in_flight` says which). It stays paused in either case."""
        self._open.clear()
        self._cancel_lapse()
        self._lapse = asyncio.get_running_loop().call_later(lapses_after, self._lapsed, lapses_after)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._drained.wait()

    def resume(self) -> None:
        """Lets through who waits, and whoever comes."""
        self._cancel_lapse()
        self._open.set()

    def _lapsed(self, seconds: float) -> None:
        logger.warning("the gateway was paused for %g s, and nobody resumed it: it goes on by itself", seconds)
        self.resume()

    def _cancel_lapse(self) -> None:
        if self._lapse is not None:
            self._lapse.cancel()
            self._lapse = None
