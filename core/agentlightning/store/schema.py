"""The embedded store's tables, and how a file of an older version becomes one of this version.

Records lie whole in ``record`` (`agentlightning.records.encode`); what is searched, ordered or fenced by has
a column of its own, and where the two differ the column is right: a lease changes ``status`` and ``attempt``
without touching the record.

Spans are rows in the order they came, so that writing them is appending; the index that makes them unique
is small and holds the spans of an attempt side by side. The indexes ``…_as_tries`` hold all that counting tries and
failures needs (`agentlightning.store.tries`), so that no record is read for it. That of the spans is also read from one
end to the other for the call that got a response of some id: an index by these ids, which are random, would have each
span write a page of its own.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from agentlightning.errors import StoreError

APPLICATION_ID = 0x61676C32
"""``agl2``, in the header of every file that is a store; ``agl1`` was the format before the first release."""

Migration = tuple[str, ...]

MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE runs (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            owner BLOB,
            owner_until REAL,
            record BLOB NOT NULL)""",
        """CREATE TABLE tasks (
            run_id TEXT NOT NULL,
            id TEXT NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (run_id, id))""",
        """CREATE TABLE rollouts (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            run_id TEXT NOT NULL,
            purpose TEXT NOT NULL,
            step INTEGER NOT NULL,
            variant TEXT NOT NULL,
            collection TEXT NOT NULL,
            task_id TEXT NOT NULL,
            status TEXT NOT NULL,
            outcome REAL,
            attempt INTEGER NOT NULL,
            worker TEXT,
            owner BLOB,
            lease_until REAL,
            record BLOB NOT NULL)""",
        "CREATE INDEX rollouts_by_run ON rollouts (run_id, collection)",
        "CREATE INDEX rollouts_by_status ON rollouts (status)",
        """CREATE TABLE spans (
            seq INTEGER PRIMARY KEY,
            rollout_id TEXT NOT NULL,
            attempt INTEGER NOT NULL,
            id TEXT NOT NULL,
            idx INTEGER NOT NULL,
            kind TEXT NOT NULL,
            record BLOB NOT NULL)""",
        "CREATE UNIQUE INDEX spans_by_attempt ON spans (rollout_id, attempt, id)",
        """CREATE TABLE metrics (
            run_id TEXT NOT NULL,
            step INTEGER NOT NULL,
            name TEXT NOT NULL,
            value REAL,
            at REAL NOT NULL,
            PRIMARY KEY (run_id, step, name)) WITHOUT ROWID""",
        """CREATE TABLE resources (
            seq INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL,
            digest TEXT NOT NULL,
            record BLOB NOT NULL,
            UNIQUE (run_id, digest))""",
        """CREATE TABLE checkpoints (
            run_id TEXT NOT NULL,
            step INTEGER NOT NULL,
            record BLOB NOT NULL,
            PRIMARY KEY (run_id, step))""",
    ),
    (
        *(f"ALTER TABLE rollouts ADD COLUMN {column}" for column in ("failure TEXT", "fault TEXT", "ended_at REAL")),
        "CREATE INDEX rollouts_as_tries ON rollouts (run_id, status, purpose, failure, fault, ended_at, id, attempt)",
        *(
            f"ALTER TABLE spans ADD COLUMN {column}"
            for column in ("agent TEXT", "used TEXT", "failure TEXT", "fault TEXT", "ended_at REAL")
        ),
        """CREATE INDEX spans_as_tries ON spans
            (rollout_id, attempt, kind, agent, used, failure, fault, ended_at, id) WHERE ended_at IS NOT NULL""",
    ),
    (
        """CREATE TABLE promotions (
            seq INTEGER PRIMARY KEY,
            target TEXT NOT NULL,
            id TEXT NOT NULL,
            revision INTEGER NOT NULL,
            record BLOB NOT NULL,
            UNIQUE (target, id))""",
    ),
    (
        "ALTER TABLE spans ADD COLUMN response_id TEXT",
        "DROP INDEX spans_as_tries",
        """CREATE INDEX spans_as_tries ON spans
            (rollout_id, attempt, kind, agent, used, failure, fault, ended_at, id, response_id)
            WHERE ended_at IS NOT NULL""",
    ),
)
"""What leads from each version to the next: the n-th entry makes version n of version n - 1. A released
entry is never changed; a new version is a new entry."""


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of an open file; 0 for one that is new and empty."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raises `StoreError` when the file is another program's database, or of a later version than this one."""
    # In this order: another process may be making the store, and its tables come with the application id.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if tables and application != APPLICATION_ID:
        raise StoreError(
            f"{path} is an SQLite database of another program, or of a version before the first release, "
            "and not a store; give the store another path"
        )
    version = version_of(connection)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path} has schema version {version}, and this agentlightning knows versions up to {len(MIGRATIONS)}: "
            "a later release wrote it; upgrade agentlightning, or give the store another path"
        )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Brings a file to the current version, in one transaction: all of it or nothing.

    Raises `StoreError` as `check` does.
    """
    check(connection, path)
    if version_of(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        check(connection, path)
        for migration in MIGRATIONS[version_of(connection) :]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
