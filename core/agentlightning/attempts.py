"""One attempt of a leased rollout, in whatever process: the agent is run, recorded and bounded, and what came of it is
written."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.codec import readable
from agentlightning.errors import RedirectError, StoreError
from agentlightning.recording import Recorder, failure_of, recording
from agentlightning.recording.repeating import DIVERGED, RecordedAnswers
from agentlightning.records import AnyResource, Failure, Rollout, Span, Task, new_id
from agentlightning.store.base import RunRecord, Store
from agentlightning.threads import needs_main_thread
from agentlightning.tracebacks import definition, origin

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0

Score = Callable[[Rollout, Task, list[Span]], Awaitable[None]]
"""Gives a rollout that ran to its end its rewards."""


class Attempts:
    """The attempts of one agent, many at once. It may run for ``timeout`` seconds, which is the option ``limit``.

    A failure of the infrastructure is tried again ``retries`` times, by whoever leases the rollout next; the agent's
    own failures are results. Without ``score`` a rollout ends with the rewards that its agent gave.
    """

    def __init__(
        self,
        agent: Any,
        adapter: Adapter,
        store: Store,
        *,
        timeout: float,
        retries: int,
        limit: str = "runner.timeout",
        score: Score | None = None,
    ) -> None:
        self._agent = agent
        self._adapter = adapter
        self._store = store
        self._timeout = timeout
        self._retries = retries
        self._limit = limit
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
        repeats = await self._answers_to_repeat(rollout)
        recorder = Recorder(rollout.id, rollout.attempt, keep, resources, seed=seed, repeats=repeats)
        try:
            output, rollout.failure = await self._call(recorder, task)
        except asyncio.CancelledError as error:
            recorder.close(failure_of(error))
            raise
        rollout.output = readable(output)
        if rollout.failure is not None and rollout.failure.where is None:
            rollout.failure.where = definition(self._agent)
        recorder.close(rollout.failure)
        if repeats is not None:
            rollout.failure = repeats.divergence(spans, rollout.failure) or rollout.failure
        rollout.rewards = list(recorder.rewards)
        await self._conclude(rollout, task, spans)
        return spans

    async def _give_back(self, rollout: Rollout) -> None:
        """Queues it again; nothing is written where its result is already."""
        rollout.status, rollout.output, rollout.failure, rollout.rewards = "queued", None, None, []
        await self._store.finish(rollout)

    async def _answers_to_repeat(self, rollout: Rollout) -> RecordedAnswers | None:
        if rollout.replays is None:
            return None
        spans = await self._store.spans(rollout.replays.rollout_id, attempt=rollout.replays.attempt)
        return RecordedAnswers(spans, rollout.replays.calls)

    async def _call(self, recorder: Recorder, task: Task) -> tuple[Any, Failure | None]:
        with recording(recorder):
            outcome = await run_bounded(self._run_agent(task), seconds=self._timeout)
        if isinstance(outcome.error, TimeLimitError):
            late = f"the agent took longer than {self._limit} = {self._timeout:g} s"
            return None, Failure(type="timeout", message=late, where=origin(outcome.error))
        if outcome.error is not None:
            return None, attribute_failure(outcome.error, recorder)
        return outcome.value, last_call_failure(recorder)

    async def _run_agent(self, task: Task) -> Any:
        return await self._adapter.run(self._agent, task.input)

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


def attribute_failure(error: BaseException, recorder: Recorder) -> Failure:
    """The failure recorded where the error came from, when it was recorded; else the agent's own."""
    if not isinstance(error, Exception):
        return _stopped(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {f"{part.__class__.__module__}.{part.__class__.__qualname__}" for part in chain}
    for failure in reversed(recorder.failures):
        if failure.exception in names and failure.type != "agent_error":
            return msgspec.structs.replace(failure, where=origin(error))
    failure = failure_of(next((part for part in chain if isinstance(part, RedirectError)), error))
    if needs_main_thread(error):
        failure.message += "; agents run in threads, many at once: give their clients a time-out in place of a signal"
    return failure


def _stopped(error: BaseException) -> Failure:
    """What is no `Exception` (SystemExit, a CancelledError of a task that the agent had cancelled) stops an agent, and
    was meant for nobody else: not for this run."""
    failure = failure_of(error)
    failure.type = "agent_error"
    where = ", of a task or future that it had cancelled" if isinstance(error, asyncio.CancelledError) else ""
    failure.message = f"the agent raised {type(error).__name__}{where}: {failure.message}"
    return failure


def last_call_failure(recorder: Recorder) -> Failure | None:
    """An agent that swallowed a broken model call and went on has no valid result when that call was its
    last one."""
    last = recorder.last_call
    return last.failure if last is not None and last.failure and last.failure.fault == "infrastructure" else None
