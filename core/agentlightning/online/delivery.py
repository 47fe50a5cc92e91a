"""From the disk to the store: in batches, again and again until they are acknowledged."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agentlightning.errors import StoreError, StoreRefusedError
from agentlightning.online.spool import OWNED_SECONDS, Refused, Spool, orphans
from agentlightning.redaction import redact
from agentlightning.store import open_store
from agentlightning.store.base import Recorded, RunRecord, Store

logger = logging.getLogger(__name__)

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 30.0
"""Seconds between two attempts, at least and at most: the longer, the longer the store is away."""
TOGETHER_SECONDS = 1.0
"""What ends within so long is handed over at once."""
REFUSED = "refused"
"""The folder, in that of the spools, of what the store refused for good."""
MAX_REFUSED_BYTES = 256 * 1024**2
LOOK_SECONDS = OWNED_SECONDS / 4
"""How often to say that this process lives, and to look for files of processes that do not."""


class Delivery:
    """Hands over what lies in this process's spool, and in those of processes that are gone, to the store at ``url``.

    ``freed`` is told how many bytes of this process's own have gone.
    """

    def __init__(self, url: str, folder: Path, freed: Callable[[int], None]) -> None:
        self._url, self._folder, self._freed = url, folder, freed
        self._own: Spool | None = None
        self._others: list[Spool] = []
        self._store: Store | None = None
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._all_written = asyncio.Event()
        self._deadline = float("inf")
        self._looked_at = float("-inf")
        self._away = False
        self._has_refused = False
        self.lost_own = False
        """Whether another process has taken over this one's spool."""

    def own(self, spool: Spool | None) -> None:
        """Says which spool is this process's."""
        if spool is not None:
            self._own, self.lost_own = spool, False

    def wake(self) -> None:
        """There may be something to hand over."""
        self._news.set()

    def stop(self, seconds: float) -> None:
        """Ends within so long, with a last attempt."""
        self._deadline = time.monotonic() + seconds
        self._stopping.set()
        self._news.set()

    def written_all(self) -> None:
        """Nothing comes after what is in the spool now."""
        self._all_written.set()

    async def run(self) -> None:
        """Hands over what comes, until it is stopped."""
        pause = 0.0
        while not self._stopping.is_set():
            self._news.clear()
            pause = 0.0 if await self._attempt() else min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
            # While the store is away nothing that comes is a reason to ask it again sooner.
            waiting_for = self._stopping if pause else self._news
            with suppress(TimeoutError):
                await asyncio.wait_for(waiting_for.wait(), pause * random.uniform(0.5, 1.0) or LOOK_SECONDS)
                await asyncio.wait_for(self._stopping.wait(), TOGETHER_SECONDS)
        await self._all_written.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadline - time.monotonic()):
                await self._attempt()
        self._let_go()
        if self._store is not None:
            with suppress(Exception):
                await asyncio.wait_for(self._store.close(), 1.0)

    async def _attempt(self) -> bool:
        """Hands over all there is; False where the store did not take it."""
        try:
            self._look_after_files()
            for spool in [*self._others, *([self._own] if self._own is not None else [])]:
                await self._hand_over(spool)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and reaches no agent
            await self._say_away(error)
            return False
        if self._away:
            logger.warning("the store at %s takes recorded rollouts again", redact(self._url))
        self._away = False
        return True

    async def _hand_over(self, spool: Spool) -> None:
        while (batch := spool.batch()) or spool.has_news:
            if self._store is None:
                self._store = await asyncio.to_thread(open_store, self._url)
            run = spool.run()
            refused = await self._add(self._store, run, batch)
            if refused:
                self._set_aside(spool, refused)
            freed = spool.delivered([one.rollout.id for one in batch], run)
            if spool is self._own:
                self._freed(freed)
        if spool is not self._own:
            self._others.remove(spool)
            spool.close()

    async def _add(self, store: Store, run: RunRecord, batch: list[Recorded]) -> list[Refused]:
        """Hands over a batch; returns what of it the store will never take. Raises what `Store.add_recorded` does, also
        where it takes nothing of this run."""
        try:
            await store.add_recorded(run, batch)
        except StoreRefusedError as error:
            if not batch:
                raise
            await store.add_recorded(run, [])
            if len(batch) == 1:
                return [Refused(batch[0], str(error))]
            half = len(batch) // 2
            return [*await self._add(store, run, batch[:half]), *await self._add(store, run, batch[half:])]
        return []

    def _set_aside(self, spool: Spool, refused: list[Refused]) -> None:
        """Keeps what the store refuses in a file of its own, so that the rest goes on. Raises `StoreError` where too
        much is kept so: something else is wrong."""
        folder = self._folder / REFUSED
        held = sum(path.stat().st_size for path in folder.glob("*"))
        if held > MAX_REFUSED_BYTES:
            raise StoreError(
                f"{folder} holds {held // 1024**2} MiB of what the store refused, and no more is set aside: see the "
                f"reasons there. {refused[0].reason}"
            )
        path = spool.set_aside(folder, refused)
        level = logging.DEBUG if self._has_refused else logging.ERROR
        self._has_refused = True
        logger.log(
            level,
            "the store at %s refuses %d of the recorded rollouts for good (%s): they are kept in %s, with the reasons "
            "beside it; moved into %s, that file is handed over again. Others are not held up, nor told of",
            *(redact(self._url), len(refused), redact(refused[0].reason), path, self._folder),
        )

    async def _say_away(self, error: Exception) -> None:
        if not self._away:
            logger.warning(
                "recorded rollouts wait in %s, since the store at %s does not take them: %s. It is tried again",
                *(self._folder, redact(self._url), redact(str(error))),
            )
        self._away = True
        store, self._store = self._store, None
        if store is not None:
            with suppress(Exception):
                await asyncio.wait_for(store.close(), 1.0)

    def _look_after_files(self) -> None:
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        if self._own is not None and not self._own.renew():
            self._own, self.lost_own = None, True
        self._others = [spool for spool in self._others if spool.renew()]
        known = {spool.path for spool in self._others} | ({self._own.path} if self._own is not None else set())
        for path in orphans(self._folder):
            if path not in known:
                with suppress(sqlite3.Error):  # no spool, one that is being made, or gone by now
                    spool = Spool.take_over(path, self._url)
                    if spool is not None:
                        self._others.append(spool)

    def _let_go(self) -> None:
        for spool in [*self._others, *([self._own] if self._own is not None else [])]:
            with suppress(sqlite3.Error):
                spool.close()
