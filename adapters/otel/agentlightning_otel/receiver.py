"""Traces as they come → rollouts of a store: one trace is one rollout of a run named after its service.

A trace comes in parts, in any order, some of them twice. What has come is in the store when `Receiver.receive`
returns; the rollout's result is written once nothing more has come for a while. What comes later still is added to
its spans, and its rewards to the rollout's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from weakref import WeakValueDictionary

from msgspec.structs import replace

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.loading import explain
from agentlightning.records import Failure, Rollout, Span, Task
from agentlightning.store.base import RunRecord, Store
from agentlightning_otel.bounded import Bounded
from agentlightning_otel.incoming import SPAN_BYTES, ReceivedSpan
from agentlightning_otel.trace import Outcome, add, outcome_of, placed, root_of
from agentlightning_otel.values import digest

logger = logging.getLogger(__name__)

ALGORITHM = "otel"
SETTLE_SECONDS = 30.0
WITHOUT_ROOT_SECONDS = 300.0
"""How long a trace is waited for whose root has not come: its agent may still be at work, or the root another
system's, which does not send here."""
LEASE_SECONDS = 60.0
MAX_PENDING_BYTES = 64 * 1024**2
"""What the spans of traces may take in memory that have had to do with no model so far."""
PENDING_SECONDS = 300.0
MAX_OPEN_BYTES = 32 * 1024**2
"""What the spans of open rollouts may take in memory; those of the others are read from the store when needed."""
OPEN_SECONDS = 5.0
"""How long they stay in memory after the last of them came."""
MAX_OPEN_ROLLOUTS = 20_000
"""Further ones are finished as they stand, the one that was last heard of longest ago first. Each takes about 3 KB."""
FINISHED_AT_ONCE = 256
MAX_NAME = 100
"""Characters of a service's name in the id of its run."""

_Traces = Mapping[str, Sequence[ReceivedSpan]]


@dataclass(eq=False)
class _Open:
    """A rollout that is still being received."""

    rollout: Rollout
    size: int
    """Bytes of its spans, about."""
    has_root: bool = False
    due: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Receiver:
    """Writes what it is given into ``store``, which stays the caller's to close.

    ``run`` is the name of the one run that everything goes to; without it each service has one. A rollout is
    finished when its root has come and nothing more for ``settle`` seconds, or when the receiver is closed. Use it
    as ``async with Receiver(store) as receiver``.
    """

    def __init__(self, store: Store, *, run: str | None = None, settle: float = SETTLE_SECONDS) -> None:
        self._store = store
        self._run = run
        self._settle = settle
        self._worker = f"otel:{socket.gethostname()}:{os.getpid()}:{id(self):x}"
        self._runs: dict[str, str] = {}
        self._opening = asyncio.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._spans: Bounded[dict[str, Span]] = Bounded(MAX_OPEN_BYTES, OPEN_SECONDS)
        self._pending: Bounded[list[ReceivedSpan]] = Bounded(MAX_PENDING_BYTES, PENDING_SECONDS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._finishing: set[asyncio.Task[None]] = set()
        self._heartbeat: asyncio.Task[None] | None = None
        self.finished = 0
        """Rollouts finished so far."""

    async def __aenter__(self) -> Receiver:
        """Takes up what an earlier receiver was killed at. Raises `StoreError`."""
        self._heartbeat = asyncio.create_task(self._keep_leases())
        for run in await self._store.runs():
            if run.algorithm == ALGORITHM and await self._unfinished(run.id):
                try:
                    await self._open_run(run)
                except StoreBusyError as error:
                    logger.warning("%s; what it has not finished is left to it", error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def receive(self, spans: Sequence[ReceivedSpan]) -> None:
        """Records spans; they are durable when this returns. Raises `StoreError`: then send them again."""
        traces: dict[str, list[ReceivedSpan]] = {}
        for received in spans:
            traces.setdefault(received.span.rollout_id, []).append(received)
        async with AsyncExitStack() as locks:
            for trace in sorted(traces):  # one order for everybody, so that nobody waits in a circle
                await locks.enter_async_context(self._lock(trace))
            finished, busy = await self._open_all(traces)
            late = {rollout.id: rollout for rollout in finished}
            whole = {
                trace: [*(self._pending.get(trace) or ()), *new]
                for trace, new in traces.items()
                if trace in self._open or trace in late
            }
            await self._add({trace: new for trace, new in whole.items() if trace not in late})
            for trace, rollout in late.items():
                await self._add_late(rollout, whole[trace])
            await self._store.flush()
            for trace in whole:
                self._pending.pop(trace)
        await self._finish_excess()
        if busy is not None:
            raise busy

    async def settle(self) -> None:
        """Finishes every rollout that is open, as it stands. Raises `StoreError` when the others are finished."""
        traces = list(self._open)
        failed: list[BaseException] = []
        for start in range(0, len(traces), FINISHED_AT_ONCE):
            ended = [self._finish(trace) for trace in traces[start : start + FINISHED_AT_ONCE]]
            failed += [error for error in await asyncio.gather(*ended, return_exceptions=True) if error is not None]
        if failed:
            raise failed[0]

    async def close(self) -> None:
        """Finishes what is open and ends the runs. Safe to call twice."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        for open in self._open.values():
            if open.timer is not None:
                open.timer.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        try:
            await self.settle()
        finally:
            for run in self._runs.values():
                await self._store.close_run(run, "succeeded")
            self._runs.clear()

    async def _open_all(self, traces: _Traces) -> tuple[list[Rollout], StoreBusyError | None]:
        """Has a rollout open for each trace with a model in it, or that was a rollout before.

        Returns those that are finished, and an error where another process holds some.
        """
        busy: StoreBusyError | None = None
        new: list[Rollout] = []
        for trace, spans in traces.items():
            if trace in self._open:
                continue
            known = [*(self._pending.get(trace) or ()), *spans]
            if not any(received.gen_ai for received in spans) and await self._store.rollout(trace) is None:
                self._keep_pending(trace, known)
                continue
            try:
                run = await self._run_for(known)
            except StoreBusyError as error:
                busy = error
                continue
            now = time.time()
            new.append(Rollout(id=trace, run_id=run, group_id=trace, task_id=trace, purpose="observe", created_at=now))
        new = [rollout for rollout in new if rollout.id not in self._open]  # opening a run may have taken it up
        stored = await self._store.enqueue(new) if new else []
        await self._lease([rollout.id for rollout in stored if not rollout.finished])
        held = [rollout.id for rollout in stored if not rollout.finished and rollout.id not in self._open]
        if held:
            busy = StoreBusyError(f"rollout {held[0]} is being received by another process; send its spans there")
        return [rollout for rollout in stored if rollout.finished], busy

    def _keep_pending(self, trace: str, spans: list[ReceivedSpan]) -> None:
        removed = self._pending.put(trace, spans, sum(received.size for received in spans))
        if removed:
            message = "%d spans of traces without a model were let go: more than %d MiB of such waited"
            logger.warning(message, sum(map(len, removed)), MAX_PENDING_BYTES // 1024**2)

    async def _lease(self, traces: list[str]) -> None:
        """Opens those of the rollouts that nobody else has; what earlier attempts had becomes this one's."""
        if not traces:
            return
        for rollout in await self._store.lease(self._worker, ids=traces, limit=len(traces), seconds=LEASE_SECONDS):
            spans: dict[str, Span] = {}
            for attempt in range(1, rollout.attempt):
                earlier = await self._store.spans(rollout.id, attempt=attempt)
                self._store.add_spans(add(spans, [replace(span, attempt=rollout.attempt) for span in earlier]))
            if spans:
                await self._store.flush()
            else:
                self._spans.put(rollout.id, spans, 0)
            open = _Open(rollout, len(spans) * SPAN_BYTES, has_root=root_of(spans) is not None)
            self._open[rollout.id] = open
            self._finish_when_settled(open)

    async def _add(self, traces: _Traces) -> None:
        """Adds spans to open rollouts; in a thread, for there may be many, and the disk slow.

        Where the store does not take them, none stay in memory: what is in the store is what counts.
        """
        known = {trace: await self._spans_of(self._open[trace].rollout) for trace in traces}

        def record() -> None:
            for trace, new in traces.items():
                self._store.add_spans(add(known[trace], _spans(new, self._open[trace].rollout)))

        await asyncio.to_thread(record)
        for trace, new in traces.items():
            open = self._open[trace]
            open.size += sum(received.size for received in new)
            open.has_root = root_of(known[trace]) is not None
            self._spans.put(trace, known[trace], open.size)
            self._open.move_to_end(trace)
            self._finish_when_settled(open)

    async def _add_late(self, rollout: Rollout, received: Sequence[ReceivedSpan]) -> None:
        """Adds spans to a rollout that has finished; rewards that are new become the rollout's."""
        spans = await self._spans_of(rollout)
        new = [item.span for item in received if item.span.id not in spans]
        changed = await asyncio.to_thread(add, spans, _spans(received, rollout))
        rewards = [placed(span.reward, span, spans) for span in new if span.reward is not None]
        if rewards:
            await self._store.add_rewards(rollout.id, rollout.attempt, rewards)
        await asyncio.to_thread(self._store.add_spans, changed)
        if any(span.parent_id is None and span.reward is None for span in new):
            message = (
                "rollout %s was finished before its root had come: its result stays; a longer --settle waits for it"
            )
            logger.warning(message, rollout.id)

    async def _spans_of(self, rollout: Rollout) -> dict[str, Span]:
        """From memory, where they are no longer then, or from the store."""
        spans = self._spans.pop(rollout.id)
        if spans is not None:
            return spans
        return {span.id: span for span in await self._store.spans(rollout.id, attempt=rollout.attempt)}

    async def _run_for(self, spans: Sequence[ReceivedSpan]) -> str:
        """The run of a trace: named after the service of its root, else of the first that came."""
        origin = next((received for received in spans if received.span.parent_id is None), spans[0])
        name = self._run or origin.service
        async with self._opening:
            if name not in self._runs:
                config = {"resource": origin.resource} if origin.resource else {}
                now = time.time()
                run = RunRecord(id=run_id(name), name=name, algorithm=ALGORITHM, config=config, created_at=now)
                await self._open_run(run)
            return self._runs[name]

    async def _open_run(self, run: RunRecord) -> None:
        """Opens a run, and goes on with the rollouts that a receiver left unfinished."""
        await self._store.open_run(run)
        await self._lease([trace for trace in await self._unfinished(run.id) if trace not in self._open])
        self._runs[run.name] = run.id

    async def _unfinished(self, run: str) -> list[str]:
        rollouts = await self._store.rollouts(run, purpose="observe")
        return [rollout.id for rollout in rollouts if not rollout.finished]

    def _finish_when_settled(self, open: _Open) -> None:
        self._finish_in(open, self._settle if open.has_root else max(self._settle, WITHOUT_ROOT_SECONDS))

    def _finish_in(self, open: _Open, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if open.timer is not None:
            open.timer.cancel()
        open.due = loop.time() + seconds
        open.timer = loop.call_later(seconds, self._finish_soon, open)

    def _finish_soon(self, open: _Open) -> None:
        task = asyncio.create_task(self._finish_or_try_again(open))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish_or_try_again(self, open: _Open) -> None:
        if open.due > asyncio.get_running_loop().time():
            return
        try:
            await self._finish(open.rollout.id)
        except StoreError:
            logger.exception("rollout %s could not be finished; it is tried again", open.rollout.id)
            self._finish_in(open, max(self._settle, 1.0))

    async def _finish_excess(self) -> None:
        """Keeps the number of open rollouts within its limit."""
        excess = [self._open[trace] for trace in islice(self._open, max(0, len(self._open) - MAX_OPEN_ROLLOUTS))]
        if excess:
            logger.warning(
                "%d rollouts are finished as they stand: more than %d are open", len(excess), MAX_OPEN_ROLLOUTS
            )
        for open in excess:
            open.due = 0.0
        await asyncio.gather(*map(self._finish_or_try_again, excess))

    async def _finish(self, trace: str) -> None:
        async with self._lock(trace):
            open = self._open.get(trace)
            if open is None:
                return
            spans = await self._spans_of(open.rollout)
            rollout, task = await asyncio.to_thread(concluded, open.rollout, spans)
            await self._store.add_tasks(rollout.run_id, [task])
            if not await self._store.finish(rollout):
                logger.warning("rollout %s was taken over by another process", trace)
            if open.timer is not None:
                open.timer.cancel()
            del self._open[trace]
            self.finished += 1

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._store.heartbeat(self._worker, seconds=LEASE_SECONDS)
            except StoreError:
                logger.exception("the store did not take a heartbeat; the next one may")

    def _lock(self, trace: str) -> asyncio.Lock:
        return self._locks.setdefault(trace, asyncio.Lock())


def run_id(name: str) -> str:
    """The id of the run that a service's traces are rollouts of: ``otel-checkout`` for ``checkout``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:MAX_NAME]
    return f"otel-{plain}" if plain == name else f"otel-{plain}-{digest(name)}".replace("--", "-")


def _spans(received: Sequence[ReceivedSpan], rollout: Rollout) -> list[Span]:
    """The spans of a rollout's attempt; those of a service that did not name the run have its name."""
    spans = []
    for span, service, *_ in received:
        elsewhere = run_id(service) != rollout.run_id and span.reward is None
        named = {"service.name": service} if elsewhere else {}
        spans.append(replace(span, attempt=rollout.attempt, attributes={**span.attributes, **named}))
    return spans


def concluded(rollout: Rollout, spans: Mapping[str, Span]) -> tuple[Rollout, Task]:
    """The rollout's result, and its task. Whatever is wrong with one trace, it ends."""
    try:
        outcome = outcome_of(spans)
    except Exception as error:
        logger.exception("the result of trace %s cannot be read", rollout.id)
        message = f"the result of the trace cannot be read: {explain(error)}"
        outcome = Outcome(failure=Failure(type="unreadable_trace", message=message, fault="infrastructure"))
    task = outcome.task_id or rollout.id
    concluded = replace(
        rollout,
        task_id=task,
        group_id=digest(rollout.run_id, task),
        status="failed" if outcome.failure is not None else "succeeded",
        failure=outcome.failure,
        output=outcome.output,
        rewards=outcome.rewards,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
    )
    return concluded, Task(id=task, input=outcome.input)
