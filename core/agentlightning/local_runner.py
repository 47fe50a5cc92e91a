"""Rollouts in this process: run, time out, retry, cancel."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.codec import readable
from agentlightning.errors import RedirectError, StoreError
from agentlightning.loop_watch import watching_loop
from agentlightning.recording import Recorder, failure_of, outside, recording
from agentlightning.recording.repeating import DIVERGED, RecordedAnswers
from agentlightning.records import AnyResource, Failure, Rollout, Span, Task
from agentlightning.runner import Runner, RunnerSetup
from agentlightning.threads import needs_main_thread
from agentlightning.tracebacks import definition, origin

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
OTHER_WORKER_SECONDS = 5.0
"""How long, each time, a rollout is waited for that another worker has leased: it ends there, or that lease does."""


class LocalRunner(Runner):
    """Runs an agent on tasks in this process, many at once on one event loop.

    Every attempt is leased from the store, recorded, scored, and written. A failure of the infrastructure is tried
    again; the agent's own failures are results.
    """

    def __init__(self, setup: RunnerSetup, options: Any) -> None:
        super().__init__(setup, options)
        self._store = setup.store
        self._config = setup.config
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{id(self):x}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the leases of this runner alive inside the block, and watches its event loop; at its end, the processes
        of its rewards are ended."""
        heartbeat = asyncio.create_task(self._renew_leases())
        try:
            with watching_loop():
                yield
        finally:
            heartbeat.cancel()
            self.setup.scoring.close()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._store.heartbeat(self.worker, seconds=LEASE_SECONDS)
            except StoreError:
                logger.exception("the store did not take a heartbeat; the next one may")

    async def run(
        self, rollouts: Sequence[Rollout], tasks: Mapping[str, Task], resources: Sequence[AnyResource]
    ) -> AsyncGenerator[str, None]:
        waiting = deque(rollouts)
        ended: asyncio.Queue[str | BaseException] = asyncio.Queue()

        async def work() -> None:
            try:
                with outside():  # a reward's model calls are part of no rollout
                    while waiting:
                        rollout = waiting.popleft()
                        await self._finish(rollout.id, tasks[rollout.task_id], resources)
                        await ended.put(rollout.id)
            except BaseException as error:  # noqa: BLE001 - raised again by the consumer
                await ended.put(error)

        workers = [asyncio.create_task(work()) for _ in range(min(self._config.concurrency, len(waiting)))]
        try:
            for _ in rollouts:
                item = await ended.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _finish(self, id: str, task: Task, resources: Sequence[AnyResource]) -> None:
        """Runs a rollout until it has ended, here or at another worker that has its lease."""
        while True:
            leased = await self._store.lease(self.worker, ids=[id], limit=1, seconds=LEASE_SECONDS)
            if not leased:
                if await self._store.wait([id], seconds=OTHER_WORKER_SECONDS):
                    return
            elif await self._attempt(leased[0], task, resources):
                return

    async def _attempt(self, rollout: Rollout, task: Task, resources: Sequence[AnyResource]) -> bool:
        """One attempt, recorded, scored and written; False where it did not end the rollout."""
        spans: list[Span] = []

        def keep(batch: Sequence[Span]) -> None:
            spans.extend(batch)
            self._store.add_spans(batch)

        rollout.started_at = time.time()
        repeats = await self._answers_to_repeat(rollout)
        recorder = Recorder(rollout.id, rollout.attempt, keep, resources, seed=self._seed_of(rollout), repeats=repeats)
        try:
            output, rollout.failure = await self._call(recorder, task)
            rollout.output = readable(output)
            if rollout.failure is not None and rollout.failure.where is None:
                rollout.failure.where = definition(self.setup.agent)
        except asyncio.CancelledError as error:
            recorder.close(failure_of(error))
            rollout.status = "queued"
            await asyncio.shield(self._store.finish(rollout))
            raise
        recorder.close(rollout.failure)
        if repeats is not None:
            rollout.failure = repeats.divergence(spans, rollout.failure) or rollout.failure
        rollout.rewards = list(recorder.rewards)
        await self._conclude(rollout, task, spans)
        rollout.ended_at = time.time()
        if not await self._store.finish(rollout):
            logger.warning(
                "rollout %s, attempt %d ended when its lease had gone to another worker: what that one writes counts",
                *(rollout.id, rollout.attempt),
            )
            return False
        if not rollout.finished:
            await asyncio.sleep(backoff_seconds(rollout.id, rollout.attempt))
            return False
        if not self.setup.scoring.group_rewards:  # else it is finished when its group is scored
            self.setup.notify("rollout_finished", rollout=rollout, task=task, spans=spans)
        return True

    async def _answers_to_repeat(self, rollout: Rollout) -> RecordedAnswers | None:
        if rollout.replays is None:
            return None
        spans = await self._store.spans(rollout.replays.rollout_id, attempt=rollout.replays.attempt)
        return RecordedAnswers(spans, rollout.replays.calls)

    async def _call(self, recorder: Recorder, task: Task) -> tuple[Any, Failure | None]:
        with recording(recorder):
            outcome = await run_bounded(self._run_agent(task), seconds=self._config.timeout)
        if isinstance(outcome.error, TimeLimitError):
            late = f"the agent took longer than runner.timeout = {self._config.timeout:g} s"
            return None, Failure(type="timeout", message=late, where=origin(outcome.error))
        if outcome.error is not None:
            return None, attribute_failure(outcome.error, recorder)
        return outcome.value, last_call_failure(recorder)

    async def _run_agent(self, task: Task) -> Any:
        return await self.setup.adapter.run(self.setup.agent, task.input)

    async def _conclude(self, rollout: Rollout, task: Task, spans: list[Span]) -> None:
        """Scores the rollout, or has it tried again."""
        failure = rollout.failure
        if failure is not None and failure.fault == "infrastructure":
            if rollout.attempt <= self._config.retries and failure.type != DIVERGED:
                rollout.failed_attempts = [*rollout.failed_attempts, failure]
                rollout.failure, rollout.output, rollout.rewards = None, None, []
                rollout.status = "queued"
                logger.warning("rollout %s, attempt %d: %s; trying again", rollout.id, rollout.attempt, failure.message)
            else:
                rollout.status = "failed"
            return
        rollout.status = "failed" if failure is not None else "succeeded"
        rewards, failures = await self.setup.scoring.score(rollout, task, spans, seconds=self._config.reward_timeout)
        rollout.rewards = [*rollout.rewards, *rewards]
        failures += [span.failure for span in spans if span.kind == "reward" and span.failure is not None]
        if failures and rollout.failure is None:
            rollout.failure = failures[0]

    def _seed_of(self, rollout: Rollout) -> int:
        """The same for the same collection, task and sample in a run of the same seed, whatever the run's id."""
        return zlib.crc32(f"{self.setup.run.seed}/{rollout.collection}/{rollout.task_id}/{rollout.sample}".encode())


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
