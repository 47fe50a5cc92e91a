"""Connections to the embedded store's file, and SQLite's errors in words that say what to do."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.store import schema

BUSY_SECONDS = 30.0
"""How long one process waits for another's transaction."""
PAGE_BYTES = 32 * 1024
"""A span with 640 tokens and its messages takes some 6 kB. With SQLite's usual pages of 4 kB it is spread over
several, and writing it costs three times the system calls."""
FILE_MODE = 0o600
FOLDER_MODE = 0o700
"""What agents were asked and answered is their owner's to read. What is there already keeps its permissions: somebody
may have opened it to a group on purpose."""
CHECKPOINT_BYTES = 32 * 1024**2
CACHE_BYTES = 32 * 1024**2


def path_of(url: str) -> tuple[str, bool]:
    """The path in a store's URL, and whether the store is only read. Raises `StoreError`."""
    path, _, mode = url.removeprefix("sqlite:///").partition("?mode=")
    if not url.startswith("sqlite:///") or not path or mode not in ("", "ro", "rwc"):
        raise StoreError(f"store {url!r}: expected sqlite:///relative/path.db or sqlite:////absolute/path.db")
    return path, mode == "ro"


def connect_writer(path: Path) -> sqlite3.Connection:
    """A connection that writes: the file and its folder made, and brought to this schema version, if need be.

    Every commit is on the disk when it returns (``synchronous=FULL``). Raises `StoreError`.
    """
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder of the store {path} cannot be made: {error}") from error
    _make_private(path)
    connection = _connect(path, "rwc")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        schema.check(connection, path)
        _write_ahead(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_BYTES}")
        connection.execute(f"PRAGMA cache_size = {-CACHE_BYTES // 1024}")
        # Where a statement could fail half-way SQLite keeps what it overwrites, else in a file that it makes and
        # removes with each transaction.
        connection.execute("PRAGMA temp_store = MEMORY")
        schema.migrate(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise store_error(path, "opened", error) from error
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads a store that is there. Raises `StoreError`."""
    if not path.exists():
        raise StoreError(f"there is no store at {path}; `agl train` makes one, or name another with --store")
    connection = _connect(path, "ro")
    try:
        schema.check(connection, path)
        version = schema.version_of(connection)
        if version < len(schema.MIGRATIONS):
            raise StoreError(
                f"{path} has schema version {version}, this agentlightning reads {len(schema.MIGRATIONS)}: "
                "open it once for writing, which brings it up to date"
            )
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.Error):
            raise store_error(path, "read", error) from error
        raise
    return connection


def store_error(path: Path, done: str, error: Exception) -> StoreError:
    """What an error of SQLite means for a store that could not be ``done`` (opened, read, written)."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if name.startswith("SQLITE_BUSY"):
        return StoreBusyError(
            f"the store {path} cannot be {done}: another process has held its write lock for {BUSY_SECONDS:g} s; "
            "try again when that process is done, or stop it"
        )
    return StoreError(f"the store {path} cannot be {done}: {_advice(name)} ({name}: {error})")


def _advice(name: str) -> str:
    if name == "SQLITE_FULL":
        return "the disk is full; free some space, what was written before is intact"
    if name.startswith("SQLITE_IOERR"):
        return "the disk did not take or give the data (full, over a quota, or failing); what was written is intact"
    if name == "SQLITE_NOTADB":
        return "the file is no SQLite database; move it away, or give the store another path"
    if name.startswith("SQLITE_CORRUPT"):
        return "the file is damaged; `sqlite3 FILE .recover` saves what can be read, or put back a copy"
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
        return "it is a folder, or this user may not write there; check the path and its permissions"
    return "an unexpected error"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
    except sqlite3.Error as error:
        raise store_error(path, "opened", error) from error


def _make_private(path: Path) -> None:
    """Makes the file where there is none: SQLite would make it readable for all, and gives the files beside it (its
    write-ahead log and index) the permissions of this one."""
    with suppress(OSError):
        # What is there, or cannot be made, is for SQLite to say.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE))


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Turns write-ahead logging on. SQLite does not wait its busy time for that one change of mode."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    if mode != "wal":
        raise StoreError(
            f"the file system of {path} has no write-ahead logging (a network drive?); put the store on a local disk"
        )
