"""What is in production for a deployed agent, as its process knows it: followed in the background, kept on disk.

A run of the agent asks what it is given, and is answered at once from memory. Where the store is away it stays as it
was known last, also when the process begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from agentlightning.checkpoints import write_whole
from agentlightning.promotion.production import arm_of, collection_of, going_canary, in_production
from agentlightning.records import AnyResource, Record, decode, encode
from agentlightning.redaction import redact
from agentlightning.store import open_store
from agentlightning.store.base import Store
from agentlightning.store.database import FOLDER_MODE
from agentlightning.store.promotions import Promotion, revision_of

logger = logging.getLogger(__name__)

FIRST_SECONDS = 2.0
"""How long a process waits, as it attaches, to be told what is in production."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 30.0
WAIT_SECONDS = 60.0
"""How long the store is asked to wait for a change, before it is asked again."""


class Given(NamedTuple):
    """What a run is given, and the collection that it is recorded in where it is one of a canary, or of those that a
    canary is compared with."""

    resources: Sequence[AnyResource] = ()
    collection: str | None = None


NOTHING = Given()


class Known(Record, kw_only=True):
    """What the file holds."""

    url: str
    target: str
    promotions: list[Promotion]


class Production:
    """What is in production for ``target`` in the store at ``url``; the file is in ``folder``."""

    def __init__(self, url: str, target: str, folder: Path) -> None:
        self._url, self._target, self._path = url, target, folder / f"{target}.production"
        self._now: tuple[Promotion | None, Promotion | None] = (None, None)
        """What is in production, and the canary."""
        self._revision = 0
        self._away = False
        self._asked = threading.Event()
        """The store has answered, or could not be asked."""
        known = self._read()
        if known is not None:
            self._take(known)

    def given(self, rollout_id: str) -> Given:
        """What the run of this id is given."""
        now, canary = self._now
        if canary is None:
            return NOTHING if now is None else Given(now.applied)
        arm = arm_of(canary, rollout_id)
        chosen = canary if arm == "canary" else now
        return Given(() if chosen is None else chosen.applied, collection_of(canary, arm))

    def wait_until_asked(self) -> None:
        """Waits until the store has answered, or could not be asked: `FIRST_SECONDS` at most."""
        self._asked.wait(FIRST_SECONDS)

    async def follow(self) -> None:
        """Takes every change, until it is cancelled."""
        store: Store | None = None
        pause = 0.0
        try:
            while True:
                try:
                    if store is None:
                        store = await asyncio.to_thread(open_store, self._url)
                        # Whatever it says: it may be another one than this process knew, with a history of its own.
                        await self._learn(await store.promotions(self._target))
                    promotions = await store.wait_for_promotions(
                        self._target, newer_than=self._revision, seconds=WAIT_SECONDS
                    )
                    if revision_of(promotions) > self._revision:
                        await self._learn(promotions)
                    pause = 0.0
                except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and reaches no agent
                    self._say_away(error)
                    pause = min(max(2 * pause, FIRST_PAUSE), LONGEST_PAUSE)
                    await _close(store)
                    store = None
                self._asked.set()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        finally:
            await _close(store)

    async def _learn(self, promotions: Sequence[Promotion]) -> None:
        self._away = False
        self._take(promotions)
        self._asked.set()
        try:
            await asyncio.to_thread(self._write, promotions)
        except OSError as error:
            logger.warning("what is in production cannot be kept in %s (%s)", self._path, error)

    def _take(self, promotions: Sequence[Promotion]) -> None:
        self._now = (in_production(promotions), going_canary(promotions))
        self._revision = revision_of(promotions)

    def _say_away(self, error: Exception) -> None:
        if not self._away:
            logger.warning(
                "what is in production cannot be asked for at %s, and stays as it was last: %s. It is tried again",
                *(redact(self._url), redact(str(error))),
            )
        self._away = True

    def _read(self) -> list[Promotion] | None:
        try:
            known: Known = decode(self._path.read_bytes(), Known)
        except (OSError, msgspec.MsgspecError):
            return None
        return known.promotions if (known.url, known.target) == (self._url, self._target) else None

    def _write(self, promotions: Sequence[Promotion]) -> None:
        self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        needed = [one for one in promotions if one.status in ("promoted", "canary")]
        write_whole(self._path, encode(Known(url=self._url, target=self._target, promotions=needed)))


async def _close(store: Store | None) -> None:
    if store is not None:
        with suppress(Exception):
            await asyncio.wait_for(store.close(), 1.0)
