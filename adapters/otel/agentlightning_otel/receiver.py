"""Traces as they come → rollouts of a store: one trace is one rollout of a run named after its service.

A trace comes in pieces, in any order, some of them twice. What has come is in the store when `Receiver.receive`
returns; the rollout's result is written once nothing more has come for a while. What comes later still is added to
its spans.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

from msgspec.structs import replace

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.loading import explain
from agentlightning.records import Failure, Rollout, Span, Task
from agentlightning.store.base import RunRecord, Store
from agentlightning_otel.pieces import Piece
from agentlightning_otel.trace import Outcome, add, outcome_of, root_of
from agentlightning_otel.waiting import Waiting

logger = logging.getLogger(__name__)

ALGORITHM = "otel"
SETTLE_SECONDS = 30.0
WITHOUT_ROOT_SECONDS = 300.0
"""How long a trace is waited for whose root has not come: its agent may still be at work, or the root another
system's, which does not send here."""
LEASE_SECONDS = 60.0
MOST_OPEN_BYTES = 32 * 1024**2
"""What the spans of open rollouts may take in memory; those of the others are read from the store when needed."""
FINISHED_AT_ONCE = 256
LONGEST_NAME = 100
"""Characters of a service's name in the id of its run."""


@dataclass(eq=False)
class _Open:
    """A rollout that is still being received; ``spans`` is None while only the store has them."""

    rollout: Rollout
    spans: dict[str, Span] | None
    size: int = 0
    """Bytes of the spans in memory, about."""
    due: float = 0.0
    timer: asyncio.TimerHandle | None = None

    def let_go(self) -> None:
        self.spans, self.size = None, 0


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
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting = Waiting()
        self._finishing: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self.finished = 0
        """Rollouts finished so far."""

    async def __aenter__(self) -> Receiver:
        """Takes up what an earlier receiver was killed at. Raises `StoreError`."""
        self._beating = asyncio.create_task(self._beat())
        for run in await self._store.runs():
            if run.algorithm == ALGORITHM and not all(it.finished for it in await self._store.rollouts(run.id)):
                try:
                    await self._open_run(run)
                except StoreBusyError as error:
                    logger.warning("%s; what it has not finished is left to it", error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def receive(self, pieces: Sequence[Piece]) -> None:
        """Records spans; they are durable when this returns. Raises `StoreError`: then send them again."""
        traces: dict[str, list[Piece]] = {}
        for piece in pieces:
            traces.setdefault(piece.span.rollout_id, []).append(piece)
        async with AsyncExitStack() as locks:
            for trace in sorted(traces):  # one order for everybody, so that nobody waits in a circle
                await locks.enter_async_context(self._lock(trace))
            finished, busy = await self._open_all(traces)
            found = {trace: [*self._waiting.pop(trace), *traces[trace]] for trace in traces if trace in self._open}
            await self._add(found)
            for rollout in finished:
                await self._add_late(rollout, [*self._waiting.pop(rollout.id), *traces[rollout.id]])
            await self._store.flush()
        self._let_go()
        if busy is not None:
            raise busy

    async def settle(self) -> None:
        """Finishes every rollout that is open, as it stands. Raises `StoreError` when the others are finished."""
        traces = list(self._open)
        failed: list[BaseException] = []
        for start in range(0, len(traces), FINISHED_AT_ONCE):
            ended = [self._finish(trace) for trace in traces[start : start + FINISHED_AT_ONCE]]
            failed += [it for it in await asyncio.gather(*ended, return_exceptions=True) if it is not None]
        if failed:
            raise failed[0]

    async def close(self) -> None:
        """Finishes what is open and ends the runs. Safe to call twice."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
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

    async def _open_all(self, traces: Mapping[str, list[Piece]]) -> tuple[list[Rollout], StoreBusyError | None]:
        """Has a rollout open for each trace with a model in it, or that was a rollout before.

        Returns those that are finished, and an error where another process holds some.
        """
        busy: StoreBusyError | None = None
        new: list[Rollout] = []
        for trace, pieces in traces.items():
            if trace in self._open:
                continue
            if not any(piece.gen_ai for piece in pieces) and await self._store.rollout(trace) is None:
                self._waiting.add(trace, pieces)
                continue
            try:
                run = await self._run_for(_origin([*self._waiting.of(trace), *pieces]))
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
            open = self._open[rollout.id] = _Open(rollout, spans=None if spans else {})
            self._finish_in(open, self._patience(spans))

    async def _add(self, traces: Mapping[str, Sequence[Piece]]) -> None:
        """Adds pieces to open rollouts; in a thread, for there may be many, and the disk slow."""
        for trace in traces:
            open = self._open[trace]
            if open.spans is None:
                open.spans = await self._known(open.rollout)
        try:
            await asyncio.to_thread(self._record, traces)
        except StoreError:
            for trace in traces:  # what is in the store is what counts
                self._open[trace].let_go()
            raise
        for trace in traces:
            open = self._open[trace]
            self._open.move_to_end(trace)
            self._finish_in(open, self._patience(open.spans or {}))

    def _record(self, traces: Mapping[str, Sequence[Piece]]) -> None:
        for trace, pieces in traces.items():
            open = self._open[trace]
            if open.spans is not None:
                self._store.add_spans(add(open.spans, _spans(pieces, open.rollout)))
                open.size += sum(piece.size for piece in pieces)

    async def _add_late(self, rollout: Rollout, pieces: Sequence[Piece]) -> None:
        known = await self._known(rollout)
        new = [piece.span for piece in pieces if piece.span.id not in known]
        await asyncio.to_thread(self._store.add_spans, add(known, _spans(pieces, rollout)))
        if any(span.reward is not None or span.parent_id is None for span in new):
            logger.warning(
                "rollout %s was finished before all of its trace had come: the late spans are added, its result and "
                "rewards stay as they were; a longer --settle waits for them",
                rollout.id,
            )

    async def _known(self, rollout: Rollout) -> dict[str, Span]:
        return {span.id: span for span in await self._store.spans(rollout.id, attempt=rollout.attempt)}

    def _let_go(self) -> None:
        """Keeps the spans in memory within their limit; of rollouts that were last heard of longest ago none stay."""
        over = sum(open.size for open in self._open.values()) - MOST_OPEN_BYTES
        for trace, open in self._open.items():
            if over <= 0:
                return
            lock = self._locks.get(trace)
            if open.size and (lock is None or not lock.locked()):
                over -= open.size
                open.let_go()

    async def _run_for(self, piece: Piece) -> str:
        name = self._run or piece.service
        async with self._opening:
            if name not in self._runs:
                record = RunRecord(
                    id=run_id(name),
                    name=name,
                    algorithm=ALGORITHM,
                    config={"resource": piece.resource} if piece.resource else {},
                    created_at=time.time(),
                )
                await self._open_run(record)
            return self._runs[name]

    async def _open_run(self, run: RunRecord) -> None:
        """Opens a run, and goes on with the rollouts that a receiver left unfinished."""
        await self._store.open_run(run)
        left = [it.id for it in await self._store.rollouts(run.id, purpose="observe") if not it.finished]
        await self._lease([trace for trace in left if trace not in self._open])
        self._runs[run.name] = run.id

    def _patience(self, spans: Mapping[str, Span]) -> float:
        """How long, from now, more of a trace is waited for."""
        return self._settle if root_of(spans) is not None else max(self._settle, WITHOUT_ROOT_SECONDS)

    def _finish_in(self, open: _Open, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if open.timer is not None:
            open.timer.cancel()
        open.due = loop.time() + seconds
        open.timer = loop.call_later(seconds, self._finish_soon, open.rollout.id)

    def _finish_soon(self, trace: str) -> None:
        task = asyncio.create_task(self._finish_if_due(trace))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def _finish_if_due(self, trace: str) -> None:
        open = self._open.get(trace)
        if open is None or open.due > asyncio.get_running_loop().time():
            return
        try:
            await self._finish(trace)
        except StoreError:
            logger.exception("rollout %s could not be finished; it is tried again", trace)
            self._finish_in(open, max(self._settle, 1.0))

    async def _finish(self, trace: str) -> None:
        async with self._lock(trace):
            open = self._open.get(trace)
            if open is None:
                return
            spans = open.spans if open.spans is not None else await self._known(open.rollout)
            rollout, task = await asyncio.to_thread(_concluded, open.rollout, spans)
            await self._store.add_tasks(rollout.run_id, [task])
            if not await self._store.finish(rollout):
                logger.warning("rollout %s was taken over by another process", trace)
            if open.timer is not None:
                open.timer.cancel()
            del self._open[trace]
            self.finished += 1

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 3)
            try:
                await self._store.heartbeat(self._worker, seconds=LEASE_SECONDS)
            except StoreError:
                logger.exception("the store did not take a heartbeat; the next one may")

    def _lock(self, trace: str) -> asyncio.Lock:
        lock = self._locks.get(trace)
        if lock is None:
            lock = self._locks[trace] = asyncio.Lock()
        return lock


def run_id(name: str) -> str:
    """The id of the run that a service's traces are rollouts of: ``otel-checkout`` for ``checkout``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")[:LONGEST_NAME]
    return f"otel-{plain}" if plain == name else f"otel-{plain}-{_digest(name)}".replace("--", "-")


def _origin(pieces: Sequence[Piece]) -> Piece:
    """The root, which names the run; else the first that came."""
    return next((piece for piece in pieces if piece.span.parent_id is None), pieces[0])


def _spans(pieces: Sequence[Piece], rollout: Rollout) -> list[Span]:
    """The spans of a rollout's attempt; those of a service that did not name the run say which it was."""
    spans = []
    for piece in pieces:
        elsewhere = run_id(piece.service) != rollout.run_id and piece.span.reward is None
        service = {"service.name": piece.service} if elsewhere else {}
        attributes = {**piece.span.attributes, **service}
        spans.append(replace(piece.span, attempt=rollout.attempt, attributes=attributes))
    return spans


def _concluded(rollout: Rollout, spans: Mapping[str, Span]) -> tuple[Rollout, Task]:
    """The rollout's result, and its task. Whatever is wrong with one trace, it ends."""
    try:
        outcome = outcome_of(spans)
    except Exception as error:
        logger.exception("what trace %s says of its rollout cannot be read", rollout.id)
        told = f"what the trace says of its rollout cannot be read: {explain(error)}"
        outcome = Outcome(failure=Failure(type="unreadable_trace", message=told, fault="infrastructure"))
    task = outcome.task_id or rollout.id
    concluded = replace(
        rollout,
        task_id=task,
        group_id=_digest(rollout.run_id, task),
        status="failed" if outcome.failure is not None else "succeeded",
        failure=outcome.failure,
        output=outcome.output,
        rewards=outcome.rewards,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
    )
    return concluded, Task(id=task, input=outcome.input)


def _digest(*parts: Any) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(errors="replace"), digest_size=8).hexdigest()
