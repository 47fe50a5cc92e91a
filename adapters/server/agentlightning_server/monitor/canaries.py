"""The canaries in a server's store, looked at as their runs end and are given rewards."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from agentlightning.promotion import canary
from agentlightning.store.base import Store
from agentlightning.store.bell import Bell
from agentlightning.store.promotions import Promotion

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
LONGEST_SHARE = 20
"""A look takes a twentieth of the time at most."""


class CanaryWatch:
    """Ends each canary that is decided, and has ``tell`` know. It looks when it begins, and when it was woken since."""

    def __init__(self, tell: Callable[[Promotion], None]) -> None:
        self._tell = tell
        self._bell = Bell()

    def wake(self) -> None:
        """There may be something to see; from any thread."""
        self._bell.ring()

    async def watch(self, store: Store) -> None:
        """Watches until it is cancelled. What fails is logged, and tried again with the next run that ends."""
        with self._bell.listening() as rung:
            while True:
                begun = time.perf_counter()
                await self._look(store)
                await asyncio.sleep(max(PAUSE_SECONDS, LONGEST_SHARE * (time.perf_counter() - begun)))
                await rung.wait()
                rung.clear()

    async def _look(self, store: Store) -> None:
        try:
            targets = [one.target for one in await store.promotions() if one.status == "canary"]
            for target in targets:
                ended = await canary.watch(store, target)
                if ended is not None:
                    self._tell(ended)
        except Exception:
            logger.exception("the canaries could not be looked at; it is tried again")
