"""Rollouts: run, time out, retry, cancel."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.codec import readable
from agentlightning.config import RunnerConfig
from agentlightning.errors import RedirectError, StoreError
from agentlightning.loop_watch import watching_loop
from agentlightning.plugins import Plugins
from agentlightning.recording import Recorder, failure_of, outside, recording
from agentlightning.records import AnyResource, Failure, Record, Rollout, Span, Task
from agentlightning.scoring import Scoring
from agentlightning.store.base import Store
from agentlightning.threads import needs_main_thread
from agentlightning.tracebacks import definition, origin

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0


class Finished(Record, kw_only=True):
    """A rollout that has ended, with the spans of its last attempt."""

    rollout: Rollout
    spans: list[Span]


class Runner:
    """Runs an agent on tasks, many at once on one event loop.

    Every attempt is leased from the store, recorded, scored, and written before it is handed back. A
    failure of the infrastructure is tried again ``config.retries`` times; the agent's own failures are
    results.
    """

    def __init__(
        self,
        agent: Any,
        adapter: Adapter,
        scoring: Scoring,
        store: Store,
        plugins: Plugins,
        config: RunnerConfig,
        *,
        seed: int = 0,
    ) -> None:
        self._agent = agent
        self._adapter = adapter
        self._scoring = scoring
        self._store = store
        self._notify = plugins.notify
        self._config = config
        self._seed = seed
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{id(self):x}"

    @asynccontextmanager
    async def leasing(self) -> AsyncIterator[None]:
        """Keeps the leases of this runner alive inside the block, and watches its event loop; at its end, the processes
        of its rewards are ended."""
        beat = asyncio.create_task(self._beat())
        try:
            with watching_loop():
                yield
        finally:
            beat.cancel()
            self._scoring.close()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._store.heartbeat(self.worker, seconds=LEASE_SECONDS)
            except StoreError:
                logger.exception("the store did not take a heartbeat; the next one may")

    async def run(
        self, rollouts: Sequence[Rollout], tasks: Mapping[str, Task], resources: Sequence[AnyResource]
    ) -> AsyncIterator[Finished]:
        """Runs queued rollouts; yields each when it has ended, in the order in which they end."""
        waiting = deque(rollouts)
        ended: asyncio.Queue[Finished | BaseException | None] = asyncio.Queue()

        async def work() -> None:
            try:
                with outside():  # a reward's model calls are part of no rollout
                    while waiting:
                        rollout = waiting.popleft()
                        await ended.put(await self._run_one(rollout, tasks[rollout.task_id], resources))
            except BaseException as error:  # noqa: BLE001 - raised again by the consumer
                await ended.put(error)
            else:
                await ended.put(None)

        workers = [asyncio.create_task(work()) for _ in range(min(self._config.concurrency, len(waiting)))]
        try:
            for _ in range(len(workers) + len(rollouts)):
                item = await ended.get()
                if isinstance(item, BaseException):
                    raise item
                if item is not None:
                    yield item
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _run_one(self, rollout: Rollout, task: Task, resources: Sequence[AnyResource]) -> Finished:
        while True:
            leased = await self._store.lease(self.worker, ids=[rollout.id], limit=1, seconds=LEASE_SECONDS)
            if not leased:
                raise StoreError(f"rollout {rollout.id} is leased by another process; wait for it to end or stop it")
            finished = await self._attempt(leased[0], task, resources)
            if finished.rollout.status != "queued":
                self._notify("rollout_finished", rollout=finished.rollout, task=task, spans=finished.spans)
                return finished
            await asyncio.sleep(min(BACKOFF_SECONDS * 2 ** (finished.rollout.attempt - 1), LONGEST_BACKOFF_SECONDS))

    async def _attempt(self, rollout: Rollout, task: Task, resources: Sequence[AnyResource]) -> Finished:
        spans: list[Span] = []

        def keep(batch: Sequence[Span]) -> None:
            spans.extend(batch)
            self._store.add_spans(batch)

        rollout.started_at = time.time()
        recorder = Recorder(rollout.id, rollout.attempt, keep, resources, seed=self._seed_of(rollout))
        try:
            output, rollout.failure = await self._call(recorder, task)
            rollout.output = readable(output)
            if rollout.failure is not None and rollout.failure.where is None:
                rollout.failure.where = definition(self._agent)
        except asyncio.CancelledError as error:
            recorder.close(failure_of(error))
            rollout.status = "queued"
            await asyncio.shield(self._store.finish(rollout))
            raise
        recorder.close(rollout.failure)
        rollout.rewards = list(recorder.rewards)
        await self._conclude(rollout, task, spans)
        rollout.ended_at = time.time()
        await self._store.finish(rollout)
        return Finished(rollout=rollout, spans=spans)

    async def _call(self, recorder: Recorder, task: Task) -> tuple[Any, Failure | None]:
        with recording(recorder):
            outcome = await run_bounded(self._run_agent(task), seconds=self._config.timeout)
        if isinstance(outcome.error, TimeLimitError):
            late = f"the agent took longer than runner.timeout = {self._config.timeout:g} s"
            return None, Failure(type="timeout", message=late, where=origin(outcome.error))
        if outcome.error is not None:
            return None, _blame(outcome.error, recorder)
        return outcome.value, _tainted(recorder)

    async def _run_agent(self, task: Task) -> Any:
        return await self._adapter.run(self._agent, task.input)

    async def _conclude(self, rollout: Rollout, task: Task, spans: list[Span]) -> None:
        """Scores the rollout, or has it tried again."""
        failure = rollout.failure
        if failure is not None and failure.fault == "infrastructure":
            if rollout.attempt <= self._config.retries:
                rollout.failed_attempts = [*rollout.failed_attempts, failure]
                rollout.failure, rollout.output, rollout.rewards = None, None, []
                rollout.status = "queued"
                logger.warning("rollout %s, attempt %d: %s; trying again", rollout.id, rollout.attempt, failure.message)
            else:
                rollout.status = "failed"
            return
        rollout.status = "failed" if failure is not None else "succeeded"
        rewards, failures = await self._scoring.score(rollout, task, spans, seconds=self._config.reward_timeout)
        rollout.rewards = [*rollout.rewards, *rewards]
        failures += [span.failure for span in spans if span.kind == "reward" and span.failure is not None]
        if failures and rollout.failure is None:
            rollout.failure = failures[0]

    def _seed_of(self, rollout: Rollout) -> int:
        """The same for the same place in a run of the same seed, whatever the run's id."""
        return zlib.crc32(f"{self._seed}/{rollout.collection}/{rollout.task_id}/{rollout.sample}".encode())


def _blame(error: BaseException, recorder: Recorder) -> Failure:
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


def _tainted(recorder: Recorder) -> Failure | None:
    """An agent that swallowed a broken model call and went on has no valid result when that call was its
    last one."""
    last = recorder.last_call
    return last.failure if last is not None and last.failure and last.failure.fault == "infrastructure" else None
