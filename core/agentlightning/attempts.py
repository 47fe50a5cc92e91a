"""One attempt of a leased rollout, wherever its agent runs: what came of it is written, or it is tried again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from agentlightning.agent_here import Assignment, Perform
from agentlightning.errors import StoreError
from agentlightning.recording.repeating import DIVERGED
from agentlightning.records import AnyResource, Rollout, Span, Task, new_id
from agentlightning.store.base import RunRecord, Store

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0

Score = Callable[[Rollout, Task, list[Span]], Awaitable[None]]
"""Gives a rollout that ran to its end its rewards."""


class Attempts:
    """The attempts of one agent, many at once; ``perform`` runs it.

    A failure of the infrastructure is tried again ``retries`` times, by whoever leases the rollout next; the agent's
    own failures are results. Without ``score`` a rollout ends with the rewards that its agent gave.
    """

    def __init__(self, perform: Perform, store: Store, *, retries: int, score: Score | None = None) -> None:
        self._perform = perform
        self._store = store
        self._retries = retries
        self._score = score

    async def run(
        self, rollout: Rollout, task: Task, resources: Sequence[AnyResource], *, seed: int
    ) -> list[Span] | None:
        """Runs a leased attempt and writes its result; the spans of the one that ended its rollout.

        None where it is to be tried again, or another worker has it by now. Where this is cancelled the rollout is
        queued again.
        """
        try:
            if rollout.failed_attempts:
                await asyncio.sleep(backoff_seconds(rollout.id, len(rollout.failed_attempts)))
            spans = await self._run(rollout, task, resources, seed)
            rollout.ended_at = time.time()
            written = await self._store.finish(rollout)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(rollout))
            raise
        if not written:
            logger.warning(
                "rollout %s, attempt %d ended when its lease had gone to another worker: what that one writes counts",
                *(rollout.id, rollout.attempt),
            )
        return spans if written and rollout.finished else None

    async def _run(self, rollout: Rollout, task: Task, resources: Sequence[AnyResource], seed: int) -> list[Span]:
        spans: list[Span] = []

        def keep(batch: Sequence[Span]) -> None:
            spans.extend(batch)
            self._store.add_spans(batch)

        rollout.started_at = time.time()
        assignment = Assignment(
            rollout_id=rollout.id, attempt=rollout.attempt, input=task.input, resources=list(resources), seed=seed
        )
        if rollout.replays is not None:
            replays = rollout.replays
            assignment.answers = await self._store.spans(replays.rollout_id, attempt=replays.attempt)
            assignment.calls = replays.calls
        performed = await self._perform(assignment, keep)
        rollout.output, rollout.failure, rollout.rewards = performed.output, performed.failure, performed.rewards
        await self._conclude(rollout, task, spans)
        return spans

    async def _give_back(self, rollout: Rollout) -> None:
        """Queues it again; nothing is written where its result is already."""
        rollout.status, rollout.output, rollout.failure, rollout.rewards = "queued", None, None, []
        await self._store.finish(rollout)

    async def _conclude(self, rollout: Rollout, task: Task, spans: list[Span]) -> None:
        """Scores the rollout, or has it tried again."""
        failure = rollout.failure
        if failure is not None and failure.fault == "infrastructure":
            if len(rollout.failed_attempts) < self._retries and failure.type != DIVERGED:
                rollout.failed_attempts = [*rollout.failed_attempts, failure]
                rollout.failure, rollout.output, rollout.rewards = None, None, []
                rollout.status = "queued"
                logger.warning("rollout %s, attempt %d: %s; trying again", rollout.id, rollout.attempt, failure.message)
            else:
                rollout.status = "failed"
            return
        rollout.status = "failed" if failure is not None else "succeeded"
        if self._score is not None:
            await self._score(rollout, task, spans)


def seed_of(run: RunRecord, rollout: Rollout) -> int:
    """What the sampling of a rollout begins with: the same for the same collection, task and sample in a run of the
    same seed, whatever the run's id."""
    return zlib.crc32(f"{run.seed}/{rollout.collection}/{rollout.task_id}/{rollout.sample}".encode())


def worker_name() -> str:
    """A name for whoever leases rollouts, which no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{new_id()}"


@asynccontextmanager
async def renewing_leases(store: Store, worker: str, *, seconds: float = LEASE_SECONDS) -> AsyncIterator[None]:
    """Keeps the leases of a worker, and the runs of its process, alive inside the block."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(seconds / 3)
            try:
                await store.heartbeat(worker, seconds=seconds)
            except StoreError:
                logger.exception("the store did not take a heartbeat; the next one may")

    heartbeat = asyncio.create_task(renew())
    try:
        yield
    finally:
        heartbeat.cancel()


def backoff_seconds(rollout_id: str, attempt: int) -> float:
    """How long to wait before a rollout is tried again: twice as long after each attempt, between half and all of it.

    Which part depends on the rollout and the attempt, so rollouts that met one limit do not come back together.
    """
    longest = min(BACKOFF_SECONDS * 2.0 ** min(attempt, 64), LONGEST_BACKOFF_SECONDS)
    return longest * (0.5 + zlib.crc32(f"{rollout_id}/{attempt}".encode()) / 2**33)
