"""Rollouts that were recorded elsewhere, added to a run that nobody owns.

As in `agentlightning.store.leases`, what writes does so within the transaction of the connection it is given, and
raises before it changes anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentlightning.errors import StoreRefusedError
from agentlightning.records import FINAL_STATUSES, decode, encode
from agentlightning.redaction import scrub
from agentlightning.store.base import Recorded, RunRecord
from agentlightning.store.leases import Row, row_of
from agentlightning.store.span_rows import SPANS, span_row
from agentlightning.store.writer import Insert

ROLLOUTS = Insert("rollouts", Row._fields, "ON CONFLICT (id) DO NOTHING")
TASKS = Insert("tasks", ("run_id", "id", "record"), "ON CONFLICT (run_id, id) DO NOTHING")


class RecordedRows(NamedTuple):
    """A recorded rollout as the tables hold it."""

    rollout: Row
    task: tuple[str, str, bytes]
    spans: list[tuple[Any, ...]]


def rows_of(run: RunRecord, recorded: Sequence[Recorded]) -> list[RecordedRows]:
    """What is written. Raises `StoreRefusedError` for what cannot be added to ``run``."""
    if run.status != "live":
        raise StoreRefusedError(
            f"run {run.id} is {run.status}: what was recorded elsewhere is added to a live run alone"
        )
    return [_rows(run, one) for one in recorded]


def _rows(run: RunRecord, recorded: Recorded) -> RecordedRows:
    rollout, task = recorded.rollout, recorded.task
    if rollout.run_id != run.id:
        raise StoreRefusedError(f"rollout {rollout.id} is of run {rollout.run_id}, and was to be added to run {run.id}")
    if rollout.status not in FINAL_STATUSES:
        raise StoreRefusedError(f"rollout {rollout.id} is {rollout.status}: it can be added when it has ended")
    if task.id != rollout.task_id:
        raise StoreRefusedError(f"rollout {rollout.id} is one of task {rollout.task_id}, and came with task {task.id}")
    for span in recorded.spans:
        if span.rollout_id != rollout.id or span.attempt != rollout.attempt:
            raise StoreRefusedError(f"span {span.id} is not of attempt {rollout.attempt} of rollout {rollout.id}")
    spans = [span_row(span) for span in recorded.spans]
    return RecordedRows(row_of(rollout), (run.id, task.id, scrub(encode(task))), spans)


def add_recorded(db: sqlite3.Connection, run: RunRecord, rows: Sequence[RecordedRows]) -> None:
    """Adds what is new. Raises `StoreRefusedError` where the run that is there is no live one."""
    found = db.execute("SELECT record FROM runs WHERE id = ?", [run.id]).fetchone()
    if found is not None:
        known: RunRecord = decode(found[0], RunRecord)
        if known.status != "live":
            raise StoreRefusedError(
                f"run {run.id} is a run of {known.algorithm}, not a live one: record under another name"
            )
        known.results = {**known.results, **run.results}
        run = known
    db.execute(
        "INSERT INTO runs (id, record) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
        [run.id, scrub(encode(run))],
    )
    for rollout, task, spans in rows:
        if _insert(db, ROLLOUTS, [rollout]) == 1:
            _insert(db, TASKS, [task])
            _insert(db, SPANS, spans)


def _insert(db: sqlite3.Connection, insert: Insert, rows: Sequence[tuple[Any, ...]]) -> int:
    marks = ", ".join("?" * len(insert.columns))
    statement = f"INSERT INTO {insert.table} ({', '.join(insert.columns)}) VALUES ({marks}) {insert.clause}"
    return db.executemany(statement, rows).rowcount
