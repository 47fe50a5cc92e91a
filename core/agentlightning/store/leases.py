"""Who does what: runs and their owners, rollouts and their leases.

Each function does its work within the transaction of the connection it is given, and raises before it
changes anything.
"""

from __future__ import annotations

import json
import operator
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.records import Failure, Reward, Rollout, decode, encode
from agentlightning.redaction import scrub
from agentlightning.store import tries
from agentlightning.store.base import RunRecord, RunStatus
from agentlightning.store.owner import Owner, has_ended

OWNED_SECONDS = 60.0
"""How long an owner on a machine that cannot be asked is believed to live, from `open_run` to the first heartbeat."""

_FREE = "worker = NULL, owner = NULL, lease_until = NULL"


class Row(NamedTuple):
    """A rollout as its table holds it."""

    id: str
    run_id: str
    purpose: str
    step: int
    variant: str
    collection: str
    task_id: str
    status: str
    outcome: float | None
    attempt: int
    failure: str | None
    fault: str | None
    ended_at: float
    record: bytes


def row_of(rollout: Rollout) -> Row:
    """The rollout as it is now; without an outcome where that does not count."""
    failure, fault = tries.rollout_failure(rollout)
    return Row(
        id=rollout.id,
        run_id=rollout.run_id,
        purpose=rollout.purpose,
        step=operator.index(rollout.step),
        variant=rollout.variant,
        collection=rollout.collection,
        task_id=rollout.task_id,
        status=rollout.status,
        outcome=rollout.outcome if rollout.is_scorable else None,
        attempt=operator.index(rollout.attempt),
        failure=failure,
        fault=fault,
        ended_at=tries.ended_at(rollout),
        record=scrub(encode(rollout)),
    )


def open_run(db: sqlite3.Connection, owner: Owner, run_id: str, new: bytes) -> RunRecord:
    """Takes the run for ``owner``, with the config and versions of the record ``new``; what the dead had leased of
    it is queued again. Raises `StoreBusyError`."""
    now = time.time()
    row = db.execute("SELECT record, owner, owner_until FROM runs WHERE id = ?", [run_id]).fetchone()
    record, before, until = row or (new, None, 0.0)
    mine = encode(owner)
    if before == mine:
        return decode(record, RunRecord)
    if before is not None:
        _refuse_while_alive(run_id, decode(before, Owner), until - now)
    run: RunRecord = decode(record, RunRecord)
    run.status, run.ended_at, run.message = "running", None, None
    opened: RunRecord = decode(new, RunRecord)
    run.config, run.versions = opened.config, opened.versions
    db.execute(
        "INSERT INTO runs (id, owner, owner_until, record) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
        "SET owner = excluded.owner, owner_until = excluded.owner_until, record = excluded.record",
        [run_id, mine, now + OWNED_SECONDS, encode(run)],
    )
    leased = db.execute("SELECT DISTINCT owner FROM rollouts WHERE run_id = ? AND status = 'running'", [run_id])
    for (holder,) in leased.fetchall():
        if holder == before or has_ended(decode(holder, Owner)):
            _queue_again(db, "run_id = ? AND owner = ?", run_id, holder)
    return run


def as_it_stands(run: RunRecord, holder: bytes | None, until: float | None) -> RunRecord:
    """The run as its record says, but ``interrupted`` where it should be running and its owner is gone."""
    if run.status != "running":
        return run
    ended = True if holder is None else has_ended(decode(holder, Owner))
    if ended or (ended is None and (until or 0.0) <= time.time()):
        run.status = "interrupted"
    return run


def update_run(
    db: sqlite3.Connection, owner: Owner, run_id: str, resources: dict[str, str], results: dict[str, str]
) -> None:
    """Writes what a run has published and what came of it. Raises `StoreBusyError` when it is another's by now."""
    run = _own_run(db, owner, run_id)
    run.resources, run.results = resources, results
    db.execute("UPDATE runs SET record = ? WHERE id = ?", [encode(run), run_id])


def close_run(db: sqlite3.Connection, owner: Owner, run_id: str, status: RunStatus, message: str | None) -> None:
    """Ends a run and what ``owner`` had leased of it. Raises `StoreBusyError` when it is another's by now."""
    run = _own_run(db, owner, run_id)
    run.status, run.message, run.ended_at = status, message, time.time()
    db.execute("UPDATE runs SET owner = NULL, owner_until = NULL, record = ? WHERE id = ?", [encode(run), run_id])
    _queue_again(db, "run_id = ? AND owner = ?", run_id, encode(owner))


def _own_run(db: sqlite3.Connection, owner: Owner, run_id: str) -> RunRecord:
    row = db.execute("SELECT record, owner FROM runs WHERE id = ?", [run_id]).fetchone()
    if row is None:
        raise StoreError(f"there is no run {run_id} in this store; `agl runs` lists what is there")
    record, holder = row
    if holder is not None and holder != encode(owner):
        other: Owner = decode(holder, Owner)
        raise StoreBusyError(f"run {run_id} was taken over by process {other.pid} on {other.host}; its record is left")
    return decode(record, RunRecord)


def give_up(db: sqlite3.Connection, owner: Owner) -> None:
    """Lets go of every run and lease of ``owner``."""
    mine = encode(owner)
    db.execute("UPDATE runs SET owner = NULL, owner_until = NULL WHERE owner = ?", [mine])
    _queue_again(db, "owner = ?", mine)


def enqueue(db: sqlite3.Connection, rows: Sequence[Row]) -> list[Rollout]:
    """Adds the rollouts that are new; returns all."""
    columns = ", ".join(Row._fields)
    db.executemany(
        f"INSERT INTO rollouts ({columns}) VALUES ({', '.join('?' * len(Row._fields))}) ON CONFLICT (id) DO NOTHING",
        rows,
    )
    query = "SELECT record, status, attempt FROM rollouts WHERE id = ?"
    return [_rollout(*db.execute(query, [row.id]).fetchone()) for row in rows]


def lease(
    db: sqlite3.Connection,
    owner: Owner,
    worker: str,
    ids: Sequence[str] | None,
    run_id: str | None,
    limit: int,
    seconds: float,
) -> list[Rollout]:
    """Hands out rollouts that are queued, or whose lease has ended, in the order they were added."""
    now = time.time()
    source, of_run = "rollouts", ""
    values: list[Any] = []
    if ids is not None:
        source = "json_each(?) CROSS JOIN rollouts ON rollouts.id = json_each.value"
        values.append(json.dumps(list(dict.fromkeys(ids))))
    values.append(now)
    if run_id is not None:
        of_run = "AND run_id = ? "
        values.append(run_id)
    rows = db.execute(
        f"SELECT seq, record, attempt + 1 FROM {source} "
        f"WHERE (status = 'queued' OR (status = 'running' AND lease_until <= ?)) {of_run}ORDER BY seq LIMIT ?",
        [*values, limit],
    ).fetchall()
    mine = encode(owner)
    db.executemany(
        "UPDATE rollouts SET status = 'running', attempt = ?, worker = ?, owner = ?, lease_until = ? WHERE seq = ?",
        [(attempt, worker, mine, now + seconds, seq) for seq, _, attempt in rows],
    )
    return [_rollout(record, "running", attempt) for _, record, attempt in rows]


def give_back(db: sqlite3.Connection, rollouts: Sequence[Rollout]) -> None:
    """Queues leased attempts again that nobody will begin."""
    for rollout in rollouts:
        _queue_again(db, "id = ? AND attempt = ?", rollout.id, rollout.attempt)


def heartbeat(db: sqlite3.Connection, owner: Owner, worker: str, seconds: float) -> None:
    """Renews the leases of ``worker`` and the runs of ``owner``."""
    until = time.time() + seconds
    db.execute("UPDATE rollouts SET lease_until = ? WHERE status = 'running' AND worker = ?", [until, worker])
    db.execute("UPDATE runs SET owner_until = ? WHERE owner = ?", [until, encode(owner)])


def finish(db: sqlite3.Connection, row: Row) -> bool:
    """Ends a lease with its result, if that attempt is the leased one."""
    return _update(db, row, "status = 'running'")


def add_rewards(
    db: sqlite3.Connection, id: str, attempt: int, rewards: Sequence[Reward], failure: Failure | None
) -> bool:
    """Gives rewards to an attempt that has finished, if it is the last one."""
    found = db.execute("SELECT record, status, attempt FROM rollouts WHERE id = ?", [id]).fetchone()
    rollout = None if found is None else _rollout(*found)
    if rollout is None or not rollout.finished or rollout.attempt != attempt:
        return False
    rollout.add_rewards(rewards, failure)
    return _update(db, row_of(rollout), "true")


def _update(db: sqlite3.Connection, row: Row, condition: str) -> bool:
    updated = db.execute(
        "UPDATE rollouts SET task_id = :task_id, status = :status, outcome = :outcome, failure = :failure, "
        f"fault = :fault, ended_at = :ended_at, record = :record, {_FREE} "
        f"WHERE id = :id AND attempt = :attempt AND {condition}",
        row._asdict(),
    )
    return updated.rowcount == 1


def _queue_again(db: sqlite3.Connection, where: str, *values: Any) -> None:
    db.execute(f"UPDATE rollouts SET status = 'queued', {_FREE} WHERE status = 'running' AND {where}", values)


def _refuse_while_alive(run_id: str, owner: Owner, seconds_left: float) -> None:
    ended = has_ended(owner)
    if ended or (ended is None and seconds_left <= 0):
        return
    remedy = "stop it, or wait until it ends" if ended is False else f"if it is dead, try again in {seconds_left:.0f} s"
    raise StoreBusyError(f"run {run_id} is open in process {owner.pid} on {owner.host}: {remedy}")


def _rollout(record: bytes, status: Any, attempt: int) -> Rollout:
    rollout: Rollout = decode(record, Rollout)
    rollout.status, rollout.attempt = status, attempt
    return rollout
