"""The embedded store: one SQLite file, written by one thread per process, read by another."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import operator
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from agentlightning.errors import StoreError, StoreRefusedError
from agentlightning.records import (
    FINAL_STATUSES,
    AnyResource,
    Failure,
    Purpose,
    Reward,
    Rollout,
    RolloutStatus,
    Span,
    Task,
    decode,
    encode,
)
from agentlightning.redaction import begin_redacting
from agentlightning.store import leases, tries
from agentlightning.store import promotions as promotion_rows
from agentlightning.store.base import Checkpoint, Metric, Recorded, RunRecord, RunStatus, RunSummary, Store
from agentlightning.store.bell import Bell
from agentlightning.store.database import connect_reader, path_of, store_error
from agentlightning.store.owner import Owner, this_process
from agentlightning.store.promotions import Promotion
from agentlightning.store.recorded import add_recorded, rows_of
from agentlightning.store.span_rows import SPANS, span_row
from agentlightning.store.sums import METRICS, metric_row, metrics_of, summary_of
from agentlightning.store.tries import TryCount
from agentlightning.store.writer import Work, Writer

T = TypeVar("T")

LOOK_AGAIN_SECONDS = 0.5
"""How often `wait` looks for what other processes have written; what this one writes wakes it."""
ROW_BYTES = 200
"""What a row takes beside its record, about."""


class AnsweredCall(NamedTuple):
    """A call of a model, by its span."""

    rollout_id: str
    attempt: int
    span_id: str


def open_sqlite(url: str) -> SQLiteStore:
    """The store of ``sqlite:///relative/path`` or ``sqlite:////absolute/path``; with ``?mode=ro`` at the end
    it is only read. Raises `StoreError`."""
    path, read_only = path_of(url)
    return SQLiteStore(path, read_only=read_only)


class SQLiteStore(Store):
    """A store in one file.

    `add_spans` and `add_metrics` return at once; only when 64 MiB wait to be written do they wait for the
    disk. What was handed over is durable after `flush`, or after any of the coroutines that write: against
    ``kill -9`` as well as against a loss of power. A reader sees what is durable.

    A span is known by its id within its attempt. Several processes may use one file; a run belongs to one
    of them, from `open_run` until `close_run`, `close`, or its death.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        """Opens the file, or makes it, with its folder. Raises `StoreError`."""
        self._path = Path(path)
        self._owner = this_process()
        begin_redacting()
        self._writer = None if read_only else Writer(self._path)
        self._read_connection = connect_reader(self._path)
        self._standings: sqlite3.Connection | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="agentlightning-store-reader")
        self._bell = Bell()
        self._closed = False
        self._is_view = False

    def owned_by(self, owner: Owner) -> SQLiteStore:
        """The same open store, in which ``owner`` holds what is opened and leased: somebody who is spoken for here.

        It shares this one's threads, so that one transaction serves all. Its `close` gives up what ``owner`` holds, and
        leaves the file open.
        """
        view = copy.copy(self)
        view._owner, view._is_view = owner, True
        return view

    async def open_run(self, run: RunRecord) -> RunRecord:
        record = encode(run)
        return await self._write(lambda db: leases.open_run(db, self._owner, run.id, record))

    async def update_run(self, run: RunRecord) -> None:
        resources, results = dict(run.resources), dict(run.results)
        await self._write(lambda db: leases.update_run(db, self._owner, run.id, resources, results))

    async def close_run(self, run_id: str, status: RunStatus, message: str | None = None) -> None:
        await self._write(lambda db: leases.close_run(db, self._owner, run_id, status, message))

    async def runs(self) -> list[RunRecord]:
        rows = await self._read("SELECT record, owner, owner_until FROM runs ORDER BY seq")
        return [leases.as_it_stands(self._decode(record, RunRecord), *owner) for record, *owner in rows]

    async def run(self, run_id: str) -> RunRecord | None:
        rows = await self._read("SELECT record, owner, owner_until FROM runs WHERE id = ?", run_id)
        if not rows:
            return None
        record, *owner = rows[0]
        return leases.as_it_stands(self._decode(record, RunRecord), *owner)

    async def add_tasks(self, run_id: str, tasks: Sequence[Task]) -> None:
        rows = [(run_id, task.id, encode(task)) for task in tasks]
        await self._write_many(
            "INSERT INTO tasks (run_id, id, record) VALUES (?, ?, ?) "
            "ON CONFLICT (run_id, id) DO UPDATE SET record = excluded.record",
            rows,
        )

    async def tasks(self, run_id: str, ids: Iterable[str] | None = None) -> dict[str, Task]:
        wanted = None if ids is None else json.dumps(list(ids))
        rows = await self._read(
            "SELECT id, record FROM tasks WHERE run_id = ?1 "
            "AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2))) ORDER BY rowid",
            *(run_id, wanted),
        )
        return {id: self._decode(record, Task) for id, record in rows}

    async def enqueue(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        rows = [leases.row_of(rollout) for rollout in rollouts]
        return await self._write(lambda db: leases.enqueue(db, rows))

    async def lease(
        self,
        worker: str,
        *,
        ids: Sequence[str] | None = None,
        run_id: str | None = None,
        limit: int = 1,
        seconds: float = 60.0,
    ) -> list[Rollout]:
        handed_out: list[Rollout] = []

        def work(db: sqlite3.Connection) -> list[Rollout]:
            handed_out.extend(leases.lease(db, self._owner, worker, ids, run_id, limit, seconds))
            return handed_out

        done = self._submit(work)
        try:
            return await asyncio.wrap_future(done)
        except asyncio.CancelledError:
            if not done.cancelled():
                with suppress(StoreError):
                    self._submit(lambda db: leases.give_back(db, handed_out))
            raise

    async def leased(self, worker: str) -> list[Rollout]:
        """What the owner has leased to ``worker`` and nobody has finished or taken since, in the order they were
        added."""
        rows = await self._read(
            "SELECT record, status, attempt FROM rollouts WHERE status = 'running' AND owner = ? AND worker = ? "
            "ORDER BY seq",
            *(encode(self._owner), worker),
        )
        return [self._decode_rollout(*row) for row in rows]

    async def unfinished(self) -> dict[str, int]:
        """How many rollouts of all runs are queued, and how many run."""
        rows = await self._read(
            "SELECT status, count(*) FROM rollouts WHERE status IN ('queued', 'running') GROUP BY 1"
        )
        return dict(rows)

    async def heartbeat(self, worker: str, *, seconds: float = 60.0) -> None:
        await self._write(lambda db: leases.heartbeat(db, self._owner, worker, seconds))

    async def finish(self, rollout: Rollout) -> bool:
        if rollout.status not in FINAL_STATUSES and rollout.status != "queued":
            raise StoreError(
                f"rollout {rollout.id} cannot be finished as {rollout.status!r}: expected one of "
                f"{', '.join(sorted(FINAL_STATUSES))}, or queued to have it tried again"
            )
        row = leases.row_of(rollout)
        finished = await self._write(lambda db: leases.finish(db, row))
        self._bell.ring()
        return finished

    async def wait(self, ids: Iterable[str], *, seconds: float | None = None) -> list[Rollout]:
        wanted = json.dumps(list(ids))
        rows = await self._wait(
            lambda rows: bool(rows) or wanted == "[]",
            seconds,
            "SELECT record, status, attempt FROM rollouts WHERE id IN (SELECT value FROM json_each(?)) "
            "AND status NOT IN ('queued', 'running') ORDER BY seq",
            wanted,
        )
        return [self._decode_rollout(*row) for row in rows]

    async def wait_for_ended(self, run_id: str, *, more_than: int, seconds: float) -> int:
        ((ended,),) = await self._wait(
            lambda rows: rows[0][0] > more_than,
            seconds,
            "SELECT count(*) FROM rollouts WHERE run_id = ? AND status IN ('succeeded', 'failed', 'cancelled')",
            run_id,
        )
        return int(ended)

    async def _wait(self, enough: Callable[[list[Any]], bool], seconds: float | None, query: str, *values: Any) -> Any:
        """The rows of a query, as soon as they are ``enough``, or ``seconds`` have passed."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        with self._bell.listening() as rung:
            while True:
                rung.clear()
                rows = await self._read(query, *values)
                left = deadline - time.monotonic()
                if enough(rows) or left <= 0:
                    return rows
                with suppress(TimeoutError):
                    await asyncio.wait_for(rung.wait(), min(left, LOOK_AGAIN_SECONDS))

    async def add_rewards(
        self, rollout_id: str, attempt: int, rewards: Sequence[Reward], failure: Failure | None = None
    ) -> bool:
        return await self._write(lambda db: leases.add_rewards(db, rollout_id, attempt, rewards, failure))

    async def add_recorded(self, run: RunRecord, recorded: Sequence[Recorded]) -> None:
        try:
            rows = await asyncio.to_thread(rows_of, run, recorded)
            await self._write(lambda db: add_recorded(db, run, rows))
        except (OverflowError, TypeError, ValueError, sqlite3.DataError, sqlite3.IntegrityError) as error:
            raise StoreRefusedError(f"what was recorded cannot be kept in {self._path}: {error}") from error
        self._bell.ring()

    async def rollouts(
        self,
        run_id: str,
        *,
        purpose: Purpose | None = None,
        collection: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Rollout]:
        conditions = {
            "purpose = ?": purpose,
            "collection = ?": collection,
            "seq > (SELECT seq FROM rollouts WHERE id = ?)": after,
        }
        chosen = {f"AND {condition} ": value for condition, value in conditions.items() if value is not None}
        rows = await self._read(
            f"SELECT record, status, attempt FROM rollouts WHERE run_id = ? {''.join(chosen)} ORDER BY seq LIMIT ?",
            *(run_id, *chosen.values(), -1 if limit is None else limit),
        )
        return [self._decode_rollout(*row) for row in rows]

    async def summary(self, run_id: str) -> RunSummary:
        return await self._reading(lambda db: summary_of(db, run_id))

    async def tries(self, run_id: str, *, since: float | None = None, bucket: float | None = None) -> list[TryCount]:
        tries.check_bucket(bucket)
        return await self._reading(lambda db: tries.count_tries(db, run_id, since, bucket))

    async def rollout(self, rollout_id: str) -> Rollout | None:
        rows = await self._read("SELECT record, status, attempt FROM rollouts WHERE id = ?", rollout_id)
        return self._decode_rollout(*rows[0]) if rows else None

    def standing(self, rollout_id: str) -> tuple[RolloutStatus, int] | None:
        """The status of a rollout and the number of its attempt, as they are now; None where there is no such rollout.

        For whoever asks with every call, always from the same thread: it is read there, where `rollout` waits for
        another one. It waits for no lock: then, too, it raises `StoreError`.
        """
        if self._closed:
            raise StoreError(f"the store {self._path} is closed; open it again to read")
        try:
            if self._standings is None:
                self._standings = connect_reader(self._path)
                self._standings.execute("PRAGMA busy_timeout = 0")
            found = self._standings.execute("SELECT status, attempt FROM rollouts WHERE id = ?", (rollout_id,))
            row: tuple[RolloutStatus, int] | None = found.fetchone()
        except sqlite3.Error as error:
            raise store_error(self._path, "read", error) from error
        return row

    async def rollout_with_spans(self, rollout_id: str) -> tuple[Rollout, list[Span]]:
        rows = await self._read(
            "SELECT rollouts.record, status, rollouts.attempt, spans.record FROM rollouts LEFT JOIN spans "
            "ON rollout_id = rollouts.id AND spans.attempt = rollouts.attempt WHERE rollouts.id = ? "
            "ORDER BY idx, spans.seq",
            rollout_id,
        )
        if not rows:
            raise StoreError(f"there is no rollout {rollout_id} in {self._path}: nobody queued it, or it was removed")
        return self._decode_rollout(*rows[0][:3]), [self._decode(row[3], Span) for row in rows if row[3] is not None]

    def add_spans(self, spans: Sequence[Span]) -> None:
        rows = [span_row(span) for span in spans]
        self._writing().add(SPANS, rows, sum(len(row[-1]) + ROW_BYTES for row in rows))

    def offer_spans(self, spans: Sequence[Span]) -> Future[None] | None:
        """Hands spans to the writer as `add_spans` does, and never waits: None, and nothing is taken, where as much
        waits already as may. The future is resolved when they are durable, or has the `StoreError`."""
        rows = [span_row(span) for span in spans]
        return self._writing().offer(SPANS, rows, sum(len(row[-1]) + ROW_BYTES for row in rows))

    async def spans(self, rollout_id: str, *, attempt: int | None = None) -> list[Span]:
        rows = await self._read(
            "SELECT record FROM spans WHERE rollout_id = ?1 AND attempt = coalesce(?2, "
            "(SELECT attempt FROM rollouts WHERE id = ?1), (SELECT max(attempt) FROM spans WHERE rollout_id = ?1)) "
            "ORDER BY idx, seq",
            rollout_id,
            attempt,
        )
        return [self._decode(record, Span) for (record,) in rows]

    async def answered_calls(self, response_id: str) -> list[AnsweredCall]:
        """The calls of models whose answers had this id. It looks through all calls, and may take a while."""
        rows = await self._read(
            "SELECT rollout_id, attempt, id FROM spans INDEXED BY spans_as_tries WHERE ended_at IS NOT NULL "
            "AND response_id = ?",
            response_id,
        )
        return [AnsweredCall(*row) for row in rows]

    def add_metrics(self, metrics: Sequence[Metric]) -> None:
        self._writing().add(METRICS, [metric_row(item) for item in metrics], len(metrics) * ROW_BYTES)

    async def metrics(self, run_id: str) -> list[Metric]:
        return await self._reading(lambda db: metrics_of(db, run_id))

    async def flush(self) -> None:
        await self._write(lambda db: None)

    async def put_resource(self, run_id: str, resource: AnyResource) -> None:
        await self._write_many(
            "INSERT INTO resources (run_id, digest, record) VALUES (?, ?, ?) "
            "ON CONFLICT (run_id, digest) DO UPDATE SET record = excluded.record",
            [(run_id, resource.digest, encode(resource))],
        )

    async def resources(self, run_id: str) -> list[AnyResource]:
        rows = await self._read("SELECT record FROM resources WHERE run_id = ? ORDER BY seq", run_id)
        return [self._decode(record, AnyResource) for (record,) in rows]

    async def resource(self, run_id: str, digest: str) -> AnyResource | None:
        rows = await self._read("SELECT record FROM resources WHERE run_id = ? AND digest = ?", run_id, digest)
        return self._decode(rows[0][0], AnyResource) if rows else None

    async def promotions(self, target: str | None = None) -> list[Promotion]:
        return promotion_rows.read(await self._read(promotion_rows.SELECT, target))

    async def put_promotions(self, target: str, promotions: Sequence[Promotion], *, revision: int) -> bool:
        written = await self._write(lambda db: promotion_rows.put(db, target, promotions, revision))
        self._bell.ring()
        return written

    async def wait_for_promotions(self, target: str, *, newer_than: int, seconds: float) -> list[Promotion]:
        is_newer = promotion_rows.newer_than(newer_than)
        return promotion_rows.read(await self._wait(is_newer, seconds, promotion_rows.SELECT, target))

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        row = (checkpoint.run_id, operator.index(checkpoint.step), encode(checkpoint))
        await self._write_many(
            "INSERT INTO checkpoints (run_id, step, record) VALUES (?, ?, ?) "
            "ON CONFLICT (run_id, step) DO UPDATE SET record = excluded.record",
            [row],
        )

    async def last_checkpoint(self, run_id: str) -> Checkpoint | None:
        rows = await self._read("SELECT record FROM checkpoints WHERE run_id = ? ORDER BY step DESC LIMIT 1", run_id)
        return self._decode(rows[0][0], Checkpoint) if rows else None

    async def close(self) -> None:
        if self._closed:
            return
        given_up = None if self._writer is None else self._submit(lambda db: leases.give_up(db, self._owner))
        self._closed = True
        self._bell.ring()
        if self._is_view:
            if given_up is not None:
                await asyncio.wrap_future(given_up)
            return
        try:
            if given_up is not None:
                await asyncio.wrap_future(given_up)
        finally:
            await asyncio.wrap_future(self._reader.submit(self._read_connection.close))
            self._reader.shutdown()
            if self._standings is not None:
                self._standings.close()
            if self._writer is not None:
                await asyncio.wrap_future(self._writer.stop())

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"the store {self._path} is open for reading only")
        if self._closed:
            raise StoreError(f"the store {self._path} is closed; open it again to write")
        return self._writer

    def _submit(self, work: Work[T]) -> Future[T]:
        return self._writing().submit(work)

    async def _write(self, work: Work[T]) -> T:
        return await asyncio.wrap_future(self._submit(work))

    async def _write_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.executemany(statement, rows)

        await self._write(work)

    async def _read(self, query: str, *values: Any) -> list[Any]:
        return await self._reading(lambda db: db.execute(query, values).fetchall())

    async def _reading(self, work: Work[T]) -> T:
        if self._closed:
            raise StoreError(f"the store {self._path} is closed; open it again to read")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, work, self._read_connection)
        except sqlite3.Error as error:
            raise store_error(self._path, "read", error) from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"the store {self._path} holds a damaged record: {error}") from error

    def _decode(self, record: bytes, kind: Any) -> Any:
        try:
            return decode(record, kind)
        except msgspec.MsgspecError as error:
            raise StoreError(f"the store {self._path} holds a damaged record: {error}") from error

    def _decode_rollout(self, record: bytes, status: Any, attempt: int) -> Rollout:
        rollout: Rollout = self._decode(record, Rollout)
        rollout.status, rollout.attempt = status, attempt
        return rollout
