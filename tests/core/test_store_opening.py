"""Opening a store: URLs, files that are no store, versions and migrations."""

from __future__ import annotations

import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from store_records import a_run, a_span

from agentlightning.errors import StoreError
from agentlightning.store import open_store, schema
from agentlightning.store.database import PAGE_BYTES, _write_ahead, connect_writer
from agentlightning.store.sqlite import SQLiteStore


async def test_a_relative_and_an_absolute_url_name_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///runs/a b%20c?.db")
    await store.open_run(a_run())
    await store.close()
    assert (tmp_path / "runs" / "a b%20c?.db").exists()
    again = open_store(f"sqlite:///{tmp_path}/runs/a b%20c?.db")
    assert await again.runs() == [a_run(status="interrupted")]
    await again.close()


async def test_a_url_can_ask_for_reading_only(tmp_path: Path) -> None:
    await open_store(f"sqlite:///{tmp_path}/store.db").close()
    store = open_store(f"sqlite:///{tmp_path}/store.db?mode=ro")
    with pytest.raises(StoreError, match="reading only"):
        await store.flush()
    await store.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("runs/store.db", "write sqlite:///runs/store.db"),
        ("nosuch://host/store", "store 'nosuch' is not installed"),
        ("sqlite://", "expected sqlite:///relative"),
        ("sqlite:///", "expected sqlite:///relative"),
        ("sqlite://store.db", "expected sqlite:///relative"),
        ("sqlite:///store.db?mode=memory", "expected sqlite:///relative"),
    ],
)
def test_a_url_that_names_no_store_is_an_error_that_says_so(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says):
        open_store(url)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    with pytest.raises(StoreError, match=r"notes\.txt cannot be opened: the file is no SQLite database"):
        SQLiteStore(path)
    assert path.read_text().startswith("not a database")


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as photos:
        photos.execute("CREATE TABLE photos (id)")
    photos.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        SQLiteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", ["", "file/store.db"], ids=["a folder", "below a file"])
def test_a_path_that_cannot_be_a_file_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"store .* cannot be"):
        SQLiteStore(tmp_path / path)


def test_reading_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        SQLiteStore(tmp_path / "store.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


async def test_a_damaged_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SQLiteStore(path)
    store.add_spans([a_span("1", index) for index in range(100)])
    await store.close()
    pages = bytearray(path.read_bytes())
    pages[PAGE_BYTES * 2 :] = b"\xa5" * (len(pages) - PAGE_BYTES * 2)
    path.write_bytes(pages)
    store = SQLiteStore(path)
    with pytest.raises(StoreError, match="the file is damaged"):
        await store.spans("1")
    store.add_spans([a_span("1")])
    with pytest.raises(StoreError, match="the file is damaged"):
        await store.close()


async def test_a_damaged_record_is_an_error_that_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.add_spans([a_span("1")])
    await store.flush()
    await store._write(lambda db: db.execute("UPDATE spans SET record = substr(record, 1, 100)") and None)
    with pytest.raises(StoreError, match="damaged record"):
        await store.spans("1")
    await store.close()


def test_what_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    connection = connect_writer(tmp_path / "store.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL: the log is synced at every commit"
    connection.close()


class BusyOnce(sqlite3.Connection):
    """Refuses the change of mode once, as SQLite does when two processes want it at the same moment."""

    refused = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if "journal_mode" in sql and not self.refused:
            self.refused = True
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = "SQLITE_BUSY"
            raise error
        return super().execute(sql, *values)


def test_a_change_to_write_ahead_logging_that_met_another_is_tried_again(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.db", factory=BusyOnce)
    _write_ahead(connection, tmp_path / "store.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def _open_together(path: Path, ready: Barrier) -> None:
    ready.wait(60)
    connect_writer(path).close()


@pytest.mark.parametrize("round", range(3))
def test_processes_that_make_the_same_store_at_once_all_get_it(tmp_path: Path, round: int) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(8)
    path = tmp_path / "new" / "store.db"
    processes = [context.Process(target=_open_together, args=(path, ready)) for _ in range(ready.parties)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)


# Versions


NEXT = ("ALTER TABLE runs ADD COLUMN note TEXT", "UPDATE runs SET note = 'from ' || id")
BROKEN = ("ALTER TABLE runs ADD COLUMN note TEXT", "UPDATE nothing SET at = all")


async def _store_of_this_version(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open_run(a_run())
    await store.close()


def _version(path: Path) -> int:
    connection = sqlite3.connect(path)
    version = schema.version_of(connection)
    connection.close()
    return version


async def test_a_new_store_has_the_current_version(tmp_path: Path) -> None:
    await _store_of_this_version(tmp_path / "store.db")
    assert _version(tmp_path / "store.db") == len(schema.MIGRATIONS)


async def test_a_store_of_an_older_version_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _store_of_this_version(tmp_path / "store.db")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
    store = SQLiteStore(tmp_path / "store.db")
    assert await store.runs() == [a_run(status="interrupted")]
    assert await store._read("SELECT note FROM runs") == [("from run",)]
    await store.close()
    assert _version(tmp_path / "store.db") == len(schema.MIGRATIONS)


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await _store_of_this_version(tmp_path / "store.db")
    current = len(schema.MIGRATIONS)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT, BROKEN))
        with pytest.raises(StoreError, match=r"store\.db cannot be opened"):
            SQLiteStore(tmp_path / "store.db")
    assert _version(tmp_path / "store.db") == current
    store = SQLiteStore(tmp_path / "store.db")
    assert await store.runs() == [a_run(status="interrupted")]
    await store.close()


async def test_a_store_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = len(schema.MIGRATIONS)
    with monkeypatch.context() as patched:
        patched.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
        await _store_of_this_version(tmp_path / "store.db")
    says = rf"schema version {known + 1}.* versions up to {known}: a later release wrote it"
    for read_only in (False, True):
        with pytest.raises(StoreError, match=says):
            SQLiteStore(tmp_path / "store.db", read_only=read_only)


async def test_reading_only_does_not_migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await _store_of_this_version(tmp_path / "store.db")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, NEXT))
    with pytest.raises(StoreError, match="open it once for writing"):
        SQLiteStore(tmp_path / "store.db", read_only=True)
