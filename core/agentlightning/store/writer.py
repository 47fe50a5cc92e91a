"""The writing half of the embedded store: one thread, one connection, one transaction per batch.

Whatever was handed over while the thread wrote is its next batch, so one `fsync` serves everything that came
in meanwhile. What was handed over earlier is durable earlier, or in the same transaction.
"""

from __future__ import annotations

import functools
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agentlightning.errors import StoreError
from agentlightning.store.database import connect_writer, store_error

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

WAITING_BYTES = 64 * 1024**2
"""Rows that may wait to be written; past that, whoever hands over more waits for the disk."""
BATCH_BYTES = 16 * 1024**2
ROWS_AT_ONCE = 1024
"""Rows per statement. SQLite runs without the interpreter's lock, and taking that back costs up to a switch
interval (5 ms) while another thread computes: once per statement is cheap, once per row is not."""
BATCH_ROWS = 2 * ROWS_AT_ONCE


class Insert(NamedTuple):
    """A table whose rows are written in bulk; ``clause`` says what a row of a known key does."""

    table: str
    columns: tuple[str, ...]
    clause: str


class _Rows(NamedTuple):
    insert: Insert
    rows: Sequence[tuple[Any, ...]]
    size: int
    done: Future[None] | None = None


class _Call(NamedTuple):
    work: Work[Any]
    done: Future[Any]


class _Outcome(NamedTuple):
    result: Any = None
    error: Exception | None = None


class Writer:
    """Takes rows and calls from any thread.

    A batch that fails is undone. Its calls, and those waiting behind it, get the `StoreError`; its rows are
    kept, up to `WAITING_BYTES`, and tried again when something is next handed over. Until that succeeds
    `add` raises the error, too.
    """

    def __init__(self, path: Path) -> None:
        """Opens the store for writing. Raises `StoreError`."""
        self._path = path
        self._connection = connect_writer(path)
        self._changed = threading.Condition()
        self._queue: deque[_Rows | _Call] = deque()
        self._waiting = 0
        self._failure: StoreError | None = None
        self._stalled = False
        self._stopping = False
        self._stopped: Future[None] = Future()
        threading.Thread(target=self._run, name="agentlightning-store-writer", daemon=True).start()

    def add(self, insert: Insert, rows: Sequence[tuple[Any, ...]], size: int) -> None:
        """Hands over rows of about ``size`` bytes.

        Returns at once, unless `WAITING_BYTES` wait already: then when the disk has caught up. Raises
        `StoreError` when the last batch failed, or after `stop`.
        """
        with self._changed:
            while not (fits := self._fits(size)) and self._failure is None and not self._stopping:
                self._changed.wait()
            self._refuse_if_stopping()
            failure = self._failure
            if fits:
                self._queue.append(_Rows(insert, rows, size))
                self._waiting += size
            self._wake()
        if failure is not None:
            fate = "is kept in memory and tried again" if fits else "is too much to keep in memory, and lost"
            raise StoreError(f"{failure}; what is handed over now {fate}") from failure

    def offer(self, insert: Insert, rows: Sequence[tuple[Any, ...]], size: int) -> Future[None] | None:
        """Hands over rows and never waits: None, and nothing is taken, where `WAITING_BYTES` wait already.

        The future is resolved when the rows are durable. Where their batch fails it has the `StoreError`, and the rows
        are kept and tried again as those of `add`. Raises `StoreError` after `stop`.
        """
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # rows are written, whoever still waits for them
        with self._changed:
            self._refuse_if_stopping()
            if not self._fits(size):
                return None
            self._queue.append(_Rows(insert, rows, size, done))
            self._waiting += size
            self._wake()
        return done

    def submit(self, work: Work[T]) -> Future[T]:
        """Has ``work`` done within a transaction, no earlier than what was handed over before.

        The future is resolved when the transaction is durable. What ``work`` raises undoes only its own
        changes. Raises `StoreError` after `stop`.
        """
        done: Future[T] = Future()
        with self._changed:
            self._refuse_if_stopping()
            self._queue.append(_Call(work, done))
            self._wake()
        return done

    def stop(self) -> Future[None]:
        """Takes no more; resolved when what can be written is written and the file is closed."""
        with self._changed:
            self._stopping = True
            self._wake()
        return self._stopped

    def _fits(self, size: int) -> bool:
        return self._waiting == 0 or self._waiting + size <= WAITING_BYTES

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise StoreError(f"the store {self._path} is closed; open it again to write")

    def _wake(self) -> None:
        self._stalled = False
        self._changed.notify_all()

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                outcomes = self._write(batch)
            except Exception as error:  # noqa: BLE001 - whoever waits is told; the thread must live on
                self._put_back(batch, error)
            else:
                self._conclude(batch, outcomes)
        if self._waiting:
            logger.error("the store %s was closed with %d bytes that could not be written", self._path, self._waiting)
        self._connection.close()
        self._stopped.set_result(None)

    def _next_batch(self) -> list[_Rows | _Call] | None:
        """The next items, of about `BATCH_ROWS` rows or `BATCH_BYTES` at most; None when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or (self._queue and not self._stalled))
            if self._stalled or not self._queue:
                return None
            batch: list[_Rows | _Call] = []
            rows = size = 0
            while self._queue and rows < BATCH_ROWS and size < BATCH_BYTES:
                item = self._queue.popleft()
                if isinstance(item, _Rows):
                    rows += len(item.rows)
                    size += item.size
                elif not item.done.set_running_or_notify_cancel():
                    continue
                batch.append(item)
            return batch

    def _write(self, batch: list[_Rows | _Call]) -> list[_Outcome]:
        """Writes a batch, its rows first; returns the outcome of each of its calls."""
        rows_of: dict[Insert, list[tuple[Any, ...]]] = {}
        for item in batch:
            if isinstance(item, _Rows):
                rows_of.setdefault(item.insert, []).extend(item.rows)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for insert, rows in rows_of.items():
                self._insert(insert, rows)
            outcomes = [self._call(item.work) for item in batch if isinstance(item, _Call)]
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        return outcomes

    def _insert(self, insert: Insert, rows: list[tuple[Any, ...]]) -> None:
        start = 0
        while start < len(rows):
            count = min(ROWS_AT_ONCE, _power_of_two_within(len(rows) - start))
            values = list(chain.from_iterable(rows[start : start + count]))
            self._connection.execute(_statement(insert, count), values)
            start += count

    def _call(self, work: Work[Any]) -> _Outcome:
        self._connection.execute("SAVEPOINT call")
        try:
            outcome = _Outcome(result=work(self._connection))
        except Exception as error:
            if type(error) in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            self._connection.execute("ROLLBACK TO call")
            outcome = _Outcome(error=error)
        self._connection.execute("RELEASE call")
        return outcome

    def _conclude(self, batch: list[_Rows | _Call], outcomes: list[_Outcome]) -> None:
        with self._changed:
            self._waiting -= sum(item.size for item in batch if isinstance(item, _Rows))
            self._failure = None
            self._changed.notify_all()
        for item in batch:
            if isinstance(item, _Rows) and item.done is not None:
                item.done.set_result(None)
        calls = [item for item in batch if isinstance(item, _Call)]
        for call, outcome in zip(calls, outcomes, strict=True):
            if outcome.error is not None:
                call.done.set_exception(outcome.error)
            else:
                call.done.set_result(outcome.result)

    def _put_back(self, batch: list[_Rows | _Call], error: Exception) -> None:
        failure = store_error(self._path, "written", error)
        with self._changed:
            calls = [item for item in batch if isinstance(item, _Call)]
            calls += [
                item for item in self._queue if isinstance(item, _Call) and item.done.set_running_or_notify_cancel()
            ]
            rows = [item for item in (*batch, *self._queue) if isinstance(item, _Rows)]
            self._queue = deque(item._replace(done=None) for item in rows)
            self._failure, self._stalled = failure, True
            self._changed.notify_all()
        logger.error("%s; %d bytes wait to be written", failure, self._waiting)
        waiting_for: list[Future[Any]] = [call.done for call in calls]
        waiting_for += [item.done for item in rows if item.done is not None]
        for done in waiting_for:
            refusal = type(failure)(str(failure))
            refusal.__cause__ = error
            done.set_exception(refusal)


def _power_of_two_within(count: int) -> int:
    return 1 << (count.bit_length() - 1)


@functools.cache
def _statement(insert: Insert, rows: int) -> str:
    marks = f"({', '.join('?' * len(insert.columns))})"
    columns = ", ".join(insert.columns)
    return f"INSERT INTO {insert.table} ({columns}) VALUES {', '.join([marks] * rows)} {insert.clause}"
