"""What was tried and what failed, counted by the store without a look at the records.

A **try** is a rollout that ran to its end, or one step of any of its attempts: a call of a model (``llm``), of a tool
(``tool``), a retrieval, a hand-off, or a turn of an agent. What was cancelled is no try: it neither failed nor not.
"""

from __future__ import annotations

import math
import sqlite3
from typing import Any, Literal, NamedTuple

from agentlightning import semconv
from agentlightning.errors import StoreError
from agentlightning.records import Failure, Fault, Record, Rollout, Span, decode

TryKind = Literal["rollout", "agent", "llm", "tool", "retrieval", "handoff"]
STEP_KINDS = ("agent", "llm", "tool", "retrieval", "handoff")
CANCELLED = "cancelled"
UNTYPED = "failed"
"""The type of a rollout that has failed and does not say why."""


class FailureExample(Record, kw_only=True):
    """One of the failures that were counted alike: the one that ended last. ``span_id`` is None for a rollout."""

    rollout_id: str
    attempt: int
    span_id: str | None = None
    at: float
    message: str = ""
    where: str | None = None


class TryCount(Record, kw_only=True):
    """How many tries came out alike, that ended within one bucket of time.

    ``agent`` is who tried (of steps), ``used`` the tool, the model, the retriever, or whom it was handed to. ``type``
    and ``fault`` are those of the failure; None where they succeeded. ``survived`` of the ``count`` were steps of
    rollouts that succeeded all the same. ``begin`` is when the bucket begins, in seconds since the epoch; 0 where all
    of time is one.
    """

    kind: TryKind
    agent: str | None = None
    used: str | None = None
    type: str | None = None
    fault: Fault | None = None
    begin: float = 0.0
    count: int
    survived: int = 0
    example: FailureExample | None = None


class Columns(NamedTuple):
    """What the store searches a span by as a try; ``ended_at`` is None where it is none."""

    agent: str | None = None
    used: str | None = None
    failure: str | None = None
    fault: str | None = None
    ended_at: float | None = None


def columns_of(span: Span) -> Columns:
    """The span as a try."""
    failure = span.failure
    if span.kind not in STEP_KINDS or span.ended_at is None or (failure is not None and failure.type == CANCELLED):
        return Columns()
    if failure is None:
        return Columns(span.agent, used_by(span), None, None, span.ended_at)
    return Columns(span.agent, used_by(span), failure.type, failure.fault, span.ended_at)


def used_by(span: Span) -> str | None:
    """The tool or the model that a step used, else what it is called; None for an agent's turn."""
    named: Any = None
    if span.kind == "agent":
        return None
    if span.kind == "tool":
        named = span.attributes.get(semconv.TOOL_NAME)
    elif span.kind == "llm":
        own = span.generation.model if span.generation is not None else None
        named = own or span.attributes.get(semconv.REQUEST_MODEL) or span.attributes.get(semconv.RESPONSE_MODEL)
    return named if isinstance(named, str) and named else span.name


def rollout_failure(rollout: Rollout) -> tuple[str | None, Fault | None]:
    """The type of a finished rollout's failure, and whose fault it was; None and None where it succeeded."""
    if rollout.failure is not None:
        return rollout.failure.type, rollout.failure.fault
    return (UNTYPED, "agent") if rollout.status == "failed" else (None, None)


def ended_at(rollout: Rollout) -> float:
    """When a rollout ended; when it was made, where nobody said."""
    return rollout.ended_at if rollout.ended_at is not None else rollout.created_at


def check_bucket(bucket: float | None) -> None:
    """Raises `StoreError` for a bucket that no time can be cut by: less than a second, or no number."""
    if bucket is not None and not (math.isfinite(bucket) and bucket >= 1):
        raise StoreError(f"bucket: expected seconds, 1 at least, got {bucket}")


ROLLOUT_TRIES = """SELECT 'rollout', NULL, NULL, failure, fault,
    CASE WHEN ?3 IS NULL THEN 0.0 ELSE CAST(ended_at / ?3 AS INTEGER) * ?3 END AS begin,
    count(*), 0, max(ended_at), id, attempt, NULL
FROM rollouts
WHERE run_id = ?1 AND status IN ('succeeded', 'failed') AND purpose <> 'check' AND (failure IS NULL OR
    failure <> 'cancelled') AND (?2 IS NULL OR ended_at >= ?2)
GROUP BY failure, fault, begin"""

STEP_TRIES = """SELECT spans.kind, spans.agent, spans.used, spans.failure, spans.fault,
    CASE WHEN ?3 IS NULL THEN 0.0 ELSE CAST(spans.ended_at / ?3 AS INTEGER) * ?3 END AS begin,
    count(*), sum(spans.failure IS NOT NULL AND rollouts.status = 'succeeded' AND rollouts.failure IS NULL),
    max(spans.ended_at), spans.rollout_id, spans.attempt, spans.id
FROM rollouts CROSS JOIN spans ON spans.rollout_id = rollouts.id
WHERE rollouts.run_id = ?1 AND rollouts.purpose <> 'check' AND spans.ended_at IS NOT NULL
    AND (?2 IS NULL OR spans.ended_at >= ?2)
GROUP BY spans.kind, spans.agent, spans.used, spans.failure, spans.fault, begin"""
"""Of one row of each group, the columns beside ``max(…)`` are those of the row that ended last: SQLite says so. The
arguments are the run, since when, and the width of a bucket."""

EXAMPLE = """SELECT coalesce(
    (SELECT record FROM spans WHERE rollout_id = ?1 AND attempt = ?2 AND id = ?3),
    (SELECT record FROM rollouts WHERE id = ?1 AND ?3 IS NULL))"""


MAX_MESSAGE = 300
"""Characters of an example's message."""


class _Recorded(Record, kw_only=True):
    """What of a span's or rollout's record an example is made of: nothing else of it is decoded."""

    failure: Failure | None = None


def count_tries(db: sqlite3.Connection, run_id: str, since: float | None, bucket: float | None) -> list[TryCount]:
    """What `Store.tries` gives, from the embedded store's tables."""
    values = (run_id, since, bucket)
    rows = [*db.execute(ROLLOUT_TRIES, values), *db.execute(STEP_TRIES, values)]
    return sorted((_count(db, row) for row in rows), key=_order)


def _count(db: sqlite3.Connection, row: tuple[Any, ...]) -> TryCount:
    kind, agent, used, failure, fault, begin, count, survived, *last = row
    example = None if failure is None else _example(db, *last)
    return TryCount(
        kind=kind,
        agent=agent,
        used=used,
        type=failure,
        fault=fault,
        begin=begin,
        count=count,
        survived=survived,
        example=example,
    )


def _example(db: sqlite3.Connection, at: float, rollout_id: str, attempt: int, span_id: str | None) -> FailureExample:
    ((record,),) = db.execute(EXAMPLE, (rollout_id, attempt, span_id))
    failure: Failure | None = decode(record, _Recorded).failure
    message, where = ("", None) if failure is None else (" ".join(failure.message.split()), failure.where)
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]} …"
    return FailureExample(rollout_id=rollout_id, attempt=attempt, span_id=span_id, at=at, message=message, where=where)


def _order(count: TryCount) -> tuple[str | float, ...]:
    """By kind, agent, what was used, type, fault and time; what has none comes first."""
    return count.kind, count.agent or "", count.used or "", count.type or "", count.fault or "", count.begin
