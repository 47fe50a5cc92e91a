"""Metrics as the embedded store's table holds them, and what a run came to in sums."""

from __future__ import annotations

import math
import operator
import sqlite3
from typing import Any

from agentlightning.store.base import CollectionSummary, Metric, RunSummary
from agentlightning.store.writer import Insert

METRICS = Insert(
    "metrics",
    ("run_id", "step", "name", "value", "at"),
    "ON CONFLICT (run_id, step, name) DO UPDATE SET value = excluded.value, at = excluded.at",
)

_LAST_STEP = "SELECT coalesce(max(step), 0) FROM metrics WHERE run_id = ?"
_COLLECTIONS = """SELECT collection, purpose, step, variant, sum(rollouts), sum(ended), sum(scored), avg(outcome) FROM (
    SELECT min(seq) AS first, collection, purpose, step, variant, count(*) AS rollouts,
        sum(status NOT IN ('queued', 'running')) AS ended, count(outcome) AS scored, avg(outcome) AS outcome
    FROM rollouts WHERE run_id = ? GROUP BY collection, task_id)
GROUP BY collection ORDER BY min(first)"""


def metric_row(metric: Metric) -> tuple[Any, ...]:
    """The row of a metric, as it is now."""
    return metric.run_id, operator.index(metric.step), metric.name, float(metric.value), metric.at


def metrics_of(db: sqlite3.Connection, run_id: str) -> list[Metric]:
    """What `Store.metrics` gives. SQLite keeps what is no number as NULL."""
    rows = db.execute("SELECT step, name, value, at FROM metrics WHERE run_id = ? ORDER BY step, name", [run_id])
    return [
        Metric(run_id=run_id, step=step, name=name, value=math.nan if value is None else value, at=at)
        for step, name, value, at in rows
    ]


def summary_of(db: sqlite3.Connection, run_id: str) -> RunSummary:
    """What `Store.summary` gives."""
    ((step,),) = db.execute(_LAST_STEP, [run_id])
    names = CollectionSummary.__struct_fields__
    collections = [
        CollectionSummary(**dict(zip(names, row, strict=True))) for row in db.execute(_COLLECTIONS, [run_id])
    ]
    return RunSummary(step=step, collections=collections)
