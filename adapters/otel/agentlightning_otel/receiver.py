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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.records import Rollout, Span, Task
from agentlightning.store.base import RunRecord, Store
from agentlightning_otel.pieces import Piece
from agentlightning_otel.trace import Outcome, add, outcome_of, root_of

logger = logging.getLogger(__name__)

ALGORITHM = "otel"
STAGE = "received"
SETTLE_SECONDS = 30.0
WITHOUT_ROOT_SECONDS = 300.0
"""How long a trace is waited for whose root has not come: its agent may still be at work, or the root another
system's, which does not send here."""
LEASE_SECONDS = 60.0
MOST_WAITING = 10_000
"""Spans kept in memory of traces that have had to do with no model so far."""


@dataclass(eq=False)
class _Open:
    """A rollout that is still being received."""

    rollout: Rollout
    spans: dict[str, Span] = field(default_factory=dict)
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
        self._open: dict[str, _Open] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: OrderedDict[str, list[Piece]] = OrderedDict()
        self._finishing: set[asyncio.Task[None]] = set()
        self._beating: asyncio.Task[None] | None = None
        self.finished = 0
        """Rollouts finished so far."""

    async def __aenter__(self) -> Receiver:
        """Takes up what an earlier receiver was killed at. Raises `StoreError`."""
        for run in await self._store.runs():
            if run.algorithm == ALGORITHM and not all(it.finished for it in await self._store.rollouts(run.id)):
                try:
                    await self._open_run(run)
                except StoreBusyError as error:
                    logger.warning("%s; what it has not finished is left to it", error)
        self._beating = asyncio.create_task(self._beat())
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
        for trace, found in traces.items():
            lock = self._lock(trace)
            async with lock:
                await self._take(trace, found)
        await self._store.flush()

    async def settle(self) -> None:
        """Finishes every rollout that is open, as it stands."""
        for trace in list(self._open):
            async with self._lock(trace):
                await self._finish(trace)

    async def close(self) -> None:
        """Finishes what is open and ends the runs. Safe to call twice."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None
        for task in list(self._finishing):
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        await self.settle()
        for run in self._runs.values():
            await self._store.close_run(run, "succeeded")
        self._runs.clear()

    async def _take(self, trace: str, pieces: list[Piece]) -> None:
        open = self._open.get(trace)
        if open is None:
            rollout = await self._store.rollout(trace)
            if rollout is None and not any(piece.gen_ai for piece in pieces):
                self._wait_for_a_model(trace, pieces)
                return
            pieces = [*self._waiting.pop(trace, ()), *pieces]
            if rollout is not None and rollout.finished:
                await self._add_late(rollout, _spans(pieces, rollout))
                return
            open = await self._begin(trace, pieces)
        self._add(open, _spans(pieces, open.rollout))

    def _add(self, open: _Open, spans: Iterable[Span]) -> None:
        self._store.add_spans(add(open.spans, spans))
        root = root_of(open.spans)
        self._finish_in(open, self._settle if root is not None else max(self._settle, WITHOUT_ROOT_SECONDS))

    async def _add_late(self, rollout: Rollout, spans: Sequence[Span]) -> None:
        known = {span.id: span for span in await self._store.spans(rollout.id, attempt=rollout.attempt)}
        new = [span for span in spans if span.id not in known]
        self._store.add_spans(add(known, spans))
        # A reader sees what is durable, and the next piece is merged into what is read.
        await self._store.flush()
        if any(span.reward is not None or span.parent_id is None for span in new):
            logger.warning(
                "rollout %s was finished before all of its trace had come: the late spans are added, its result and "
                "rewards stay as they were; a longer --settle waits for them",
                rollout.id,
            )

    async def _begin(self, trace: str, pieces: list[Piece]) -> _Open:
        origin = next((piece for piece in pieces if piece.span.parent_id is None), pieces[0])
        run = await self._run_for(origin)
        if trace in self._open:  # taken up again when the run was opened
            return self._open[trace]
        await self._store.enqueue(
            [Rollout(id=trace, run_id=run, group_id=trace, task_id=trace, stage=STAGE, created_at=time.time())]
        )
        return await self._lease(trace)

    async def _lease(self, trace: str) -> _Open:
        leased = await self._store.lease(self._worker, ids=[trace], seconds=LEASE_SECONDS)
        if not leased:
            raise StoreBusyError(f"rollout {trace} is being received by another process; send its spans there")
        self._open[trace] = _Open(leased[0])
        return self._open[trace]

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
        await self._store.open_run(run)
        self._runs[run.name] = run.id
        for rollout in await self._store.rollouts(run.id, stage=STAGE):
            if not rollout.finished and rollout.id not in self._open:
                await self._take_up(rollout)

    async def _take_up(self, rollout: Rollout) -> None:
        """Goes on with a rollout that a receiver left unfinished: its spans become those of this attempt."""
        spans = await self._store.spans(rollout.id, attempt=rollout.attempt)
        open = await self._lease(rollout.id)
        self._add(open, [msgspec.structs.replace(span, attempt=open.rollout.attempt) for span in spans])

    def _wait_for_a_model(self, trace: str, pieces: list[Piece]) -> None:
        self._waiting.setdefault(trace, []).extend(pieces)
        self._waiting.move_to_end(trace)
        while sum(map(len, self._waiting.values())) > MOST_WAITING:
            self._waiting.popitem(last=False)

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
        async with self._lock(trace):
            open = self._open.get(trace)
            if open is None or open.due > asyncio.get_running_loop().time():
                return
            try:
                await self._finish(trace)
            except StoreError:
                logger.exception("rollout %s could not be finished; it is tried again", trace)
                self._finish_in(open, max(self._settle, 1.0))

    async def _finish(self, trace: str) -> None:
        open = self._open.get(trace)
        if open is None:
            return
        outcome = outcome_of(open.spans)
        rollout = _concluded(open.rollout, outcome)
        await self._store.add_tasks(rollout.run_id, [Task(id=rollout.task_id, input=outcome.input)])
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
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
    return f"otel-{plain}" if plain == name else f"otel-{plain}-{_digest(name)}".replace("--", "-")


def _spans(pieces: Sequence[Piece], rollout: Rollout) -> list[Span]:
    """The spans of a rollout's attempt; those of a service that did not name the run say which it was."""
    spans = []
    for piece in pieces:
        elsewhere = run_id(piece.service) != rollout.run_id and piece.span.reward is None
        service = {"service.name": piece.service} if elsewhere else {}
        attributes = {**piece.span.attributes, **service}
        spans.append(msgspec.structs.replace(piece.span, attempt=rollout.attempt, attributes=attributes))
    return spans


def _concluded(rollout: Rollout, outcome: Outcome) -> Rollout:
    task = outcome.task_id or rollout.id
    return msgspec.structs.replace(
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


def _digest(*parts: Any) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(errors="replace"), digest_size=8).hexdigest()
