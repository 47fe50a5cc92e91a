"""The server's store, which tells an observer what is written through it: by clients, the gateway, or feedback."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from agentlightning.records import Failure, Reward, Rollout, Span
from agentlightning.store.base import Recorded, RunRecord
from agentlightning.store.database import path_of
from agentlightning.store.sqlite import SQLiteStore


class Observer(Protocol):
    """Is told from any thread, and returns quickly."""

    def spans_written(self, spans: Sequence[Span]) -> None: ...

    def attempt_ended(self, rollout: Rollout) -> None:
        """An attempt has ended; where the rollout is tried again, its status is ``queued``."""

    def rewards_added(self) -> None:
        """A rollout that has ended was given rewards."""


class ObservedStore(SQLiteStore):
    """A store whose views (`owned_by`) tell the same observer, if there is one when they are made."""

    observer: Observer | None = None

    def add_spans(self, spans: Sequence[Span]) -> None:
        super().add_spans(spans)
        if self.observer is not None:
            self.observer.spans_written(spans)

    def offer_spans(self, spans: Sequence[Span]) -> Future[None] | None:
        taken = super().offer_spans(spans)
        if taken is not None and self.observer is not None:
            self.observer.spans_written(spans)
        return taken

    async def finish(self, rollout: Rollout) -> bool:
        finished = await super().finish(rollout)
        if finished and self.observer is not None:
            self.observer.attempt_ended(rollout)
        return finished

    async def add_rewards(
        self, rollout_id: str, attempt: int, rewards: Sequence[Reward], failure: Failure | None = None
    ) -> bool:
        added = await super().add_rewards(rollout_id, attempt, rewards, failure)
        if added and self.observer is not None:
            self.observer.rewards_added()
        return added

    async def add_recorded(self, run: RunRecord, recorded: Sequence[Recorded]) -> None:
        ids = [one.rollout.id for one in recorded]
        known = {rollout.id for rollout in await self.wait(ids, seconds=0)} if self.observer is not None else set()
        await super().add_recorded(run, recorded)
        for one in recorded:
            if self.observer is not None and one.rollout.id not in known:
                known.add(one.rollout.id)
                self.observer.spans_written(one.spans)
                self.observer.attempt_ended(one.rollout)


def open_observed(url: str) -> ObservedStore:
    """The store at a URL ``sqlite:///…``. Raises `StoreError`."""
    path, read_only = path_of(url)
    return ObservedStore(path, read_only=read_only)
