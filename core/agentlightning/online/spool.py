"""What a deployed agent's process has recorded and its store has not acknowledged: one SQLite file of its own.

The file says whose it is. When its process is gone another that uses the same folder takes it over, and goes on with
what is in it; what the process was in the middle of is then a failed rollout.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from agentlightning.records import Failure, Span, decode, encode
from agentlightning.redaction import redact
from agentlightning.store.base import Recorded, RunRecord
from agentlightning.store.database import FILE_MODE, FOLDER_MODE
from agentlightning.store.owner import Owner, has_ended, this_process

logger = logging.getLogger(__name__)

SUFFIX = ".live"
OWNED_SECONDS = 60.0
"""How long a process that cannot be looked at (another container) is believed to live since it last said so."""
BUSY_SECONDS = 10.0
ROW_BYTES = 200
"""What a row takes beside its record, about."""
BATCH_BYTES = 4 * 1024**2
BATCH_ROLLOUTS = 200

_TABLES = (
    "CREATE TABLE spool (owner BLOB, until REAL NOT NULL, url TEXT NOT NULL, run BLOB NOT NULL, label TEXT NOT NULL, "
    "dropped INTEGER NOT NULL, told INTEGER NOT NULL)",
    "CREATE TABLE rollouts (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL, "
    "bytes INTEGER NOT NULL, record BLOB NOT NULL)",
    "CREATE TABLE spans (seq INTEGER PRIMARY KEY, rollout_id TEXT NOT NULL, record BLOB NOT NULL)",
    "CREATE INDEX spans_by_rollout ON spans (rollout_id)",
)


class Item(NamedTuple):
    """Something that happened to a rollout. ``record`` is, of ``begin`` and ``end``, the rollout with its task
    (`Recorded`), of ``span`` the span; ``drop`` takes the whole rollout out, and counts it."""

    kind: Literal["begin", "span", "end", "drop"]
    rollout_id: str
    record: bytes = b""

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return len(self.record) + ROW_BYTES if self.kind != "drop" else 0


class Refused(NamedTuple):
    """A rollout that the store will never take, and why."""

    recorded: Recorded
    reason: str


class Spool:
    """One file, used by one thread. What raises `sqlite3.Error` has changed nothing."""

    def __init__(self, path: Path, db: sqlite3.Connection, owner: Owner) -> None:
        self.path = path
        self._db = db
        self._owner = owner

    @classmethod
    def new(cls, folder: Path, url: str, run: RunRecord) -> Spool:
        """A file of this process's own. Raises `OSError` and `sqlite3.Error`."""
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        owner = this_process()
        path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        path.touch(FILE_MODE, exist_ok=False)
        spool = cls(path, _connect(path), owner)
        label = f"{owner.host}:{owner.pid}:{owner.token[:4]}"
        row = (encode(owner), time.time() + OWNED_SECONDS, url, encode(run), label)
        with spool._transaction() as db:
            _make_tables(db, row)
        return spool

    @classmethod
    def take_over(cls, path: Path, url: str) -> Spool | None:
        """The file of a process that is gone, as this one's from now on; None where its process lives, or it is for
        another store than ``url``. Raises `sqlite3.Error` where it is none, or gone."""
        spool = cls(path, _connect(path), this_process())
        taken = False
        try:
            taken = spool._take(url)
        finally:
            if not taken:
                spool._db.close()
        return spool if taken else None

    def _take(self, url: str) -> bool:
        row = self._db.execute("SELECT owner, until, url FROM spool").fetchone()
        if row is None or row[2] != url:
            return False
        before, until, _ = row
        if before is not None:
            ended = has_ended(decode(before, Owner))
            if ended is False or (ended is None and until > time.time()):
                return False
        mine = (encode(self._owner), time.time() + OWNED_SECONDS)
        with self._transaction() as db:
            taken = db.execute("UPDATE spool SET owner = ?, until = ? WHERE owner IS ?", (*mine, before)).rowcount == 1
            if taken:
                self._end_what_was_cut_off(db)
        return taken

    def _end_what_was_cut_off(self, db: sqlite3.Connection) -> None:
        for id, record in db.execute("SELECT id, record FROM rollouts WHERE NOT ended").fetchall():
            recorded: Recorded = decode(record, Recorded)
            recorded.rollout.status = "failed"
            recorded.rollout.failure = Failure(
                type="process_ended",
                message="its process ended, or was killed, before the agent had answered",
                fault="infrastructure",
            )
            db.execute("UPDATE rollouts SET ended = 1, record = ? WHERE id = ?", (encode(recorded), id))

    def renew(self) -> bool:
        """Says that this process lives. False where the file was taken over meanwhile: this process seemed gone."""
        until = time.time() + OWNED_SECONDS
        renewed = self._db.execute("UPDATE spool SET until = ? WHERE owner = ?", (until, encode(self._owner)))
        return renewed.rowcount == 1

    def write(self, items: Sequence[Item]) -> int:
        """Writes what has happened, all of it or nothing; returns how many bytes of it are not kept, or no longer."""
        freed = 0
        with self._transaction() as db:
            for item in items:
                freed += self._write(db, item)
        return freed

    def _write(self, db: sqlite3.Connection, item: Item) -> int:
        id, size = item.rollout_id, item.size
        if item.kind == "drop":
            db.execute("UPDATE spool SET dropped = dropped + 1")
            return self._delete(db, [id])
        if item.kind == "begin":
            db.execute("INSERT INTO rollouts (id, ended, bytes, record) VALUES (?, 0, ?, ?)", (id, size, item.record))
            return 0
        known = db.execute("UPDATE rollouts SET bytes = bytes + ? WHERE id = ?", (size, id)).rowcount == 1
        if not known:
            return size
        if item.kind == "end":
            db.execute("UPDATE rollouts SET ended = 1, record = ? WHERE id = ?", (item.record, id))
        else:
            db.execute("INSERT INTO spans (rollout_id, record) VALUES (?, ?)", (id, item.record))
        return 0

    def batch(self) -> list[Recorded]:
        """Rollouts that have ended, the first that were begun, of about `BATCH_BYTES`."""
        found: list[Recorded] = []
        size = 0
        rows = self._db.execute(
            "SELECT id, bytes, record FROM rollouts WHERE ended ORDER BY seq LIMIT ?", (BATCH_ROLLOUTS,)
        )
        for id, bytes_, record in rows.fetchall():
            if found and size + bytes_ > BATCH_BYTES:
                break
            size += bytes_
            try:
                found.append(self._recorded(id, record))
            except msgspec.MsgspecError:
                logger.exception("rollout %s in %s cannot be read, and is dropped", id, self.path)
                self.write([Item("drop", id)])
        return found

    def _recorded(self, id: str, record: bytes) -> Recorded:
        recorded: Recorded = decode(record, Recorded)
        spans = self._db.execute("SELECT record FROM spans WHERE rollout_id = ? ORDER BY seq", (id,)).fetchall()
        recorded.spans = [decode(span, Span) for (span,) in spans]
        return recorded

    def run(self) -> RunRecord:
        """The live run, and in its results how many rollouts were dropped here."""
        record, label, dropped = self._db.execute("SELECT run, label, dropped FROM spool").fetchone()
        run: RunRecord = decode(record, RunRecord)
        if dropped:
            run.results = {f"dropped by {label}": str(dropped)}
        return run

    @property
    def has_news(self) -> bool:
        """Whether the store has not been told yet how many were dropped."""
        dropped, told = self._db.execute("SELECT dropped, told FROM spool").fetchone()
        return bool(dropped != told)

    def delivered(self, ids: Iterable[str], run: RunRecord) -> int:
        """The store has acknowledged these rollouts, and ``run``; returns how many bytes are free for that."""
        told = next((int(count) for count in run.results.values()), 0)
        with self._transaction() as db:
            db.execute("UPDATE spool SET told = ?", (told,))
            return self._delete(db, list(ids))

    def _delete(self, db: sqlite3.Connection, ids: Sequence[str]) -> int:
        freed = 0
        for id in ids:
            row = db.execute("SELECT bytes FROM rollouts WHERE id = ?", (id,)).fetchone()
            if row is not None:
                freed += int(row[0])
                db.execute("DELETE FROM spans WHERE rollout_id = ?", (id,))
                db.execute("DELETE FROM rollouts WHERE id = ?", (id,))
        return freed

    def set_aside(self, folder: Path, refused: Sequence[Refused]) -> Path:
        """Writes rollouts into a spool of their own in ``folder``, which is nobody's, and the reasons beside it;
        returns its path. Then it is on the disk, and they may be deleted here. Raises `OSError` and `sqlite3.Error`."""
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        reasons = "".join(f"{one.recorded.rollout.id}: {one.reason}\n" for one in refused)
        path.touch(FILE_MODE, exist_ok=False)
        path.with_suffix(".txt").touch(FILE_MODE)
        path.with_suffix(".txt").write_text(redact(reasons), "utf-8", "backslashreplace")
        url, run, label = self._db.execute("SELECT url, run, label FROM spool").fetchone()
        kept = Spool(path, _connect(path), self._owner)
        with kept._transaction() as db:
            _make_tables(db, (None, 0.0, url, run, label))
            for recorded, _ in refused:
                spans, recorded = recorded.spans, msgspec.structs.replace(recorded, spans=[])
                id = recorded.rollout.id
                records = [Item("span", id, encode(span)) for span in spans]
                whole = Item("end", id, encode(recorded))
                kept._write(db, whole._replace(kind="begin"))
                for item in (*records, whole):
                    kept._write(db, item)
        kept._db.close()
        return path

    @property
    def stored_bytes(self) -> int:
        """What it holds, about."""
        return int(self._db.execute("SELECT coalesce(sum(bytes), 0) FROM rollouts").fetchone()[0])

    def close(self) -> None:
        """Lets go of the file, for whoever attaches next; removes it where nothing is left in it."""
        with self._transaction() as db:
            empty = db.execute("SELECT count(*) FROM rollouts").fetchone()[0] == 0 and not self.has_news
            if not empty:
                db.execute("UPDATE spool SET owner = NULL WHERE owner = ?", (encode(self._owner),))
        self._db.close()
        if empty:
            for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-wal", "-shm"))):
                with suppress(OSError):
                    path.unlink()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _make_tables(db: sqlite3.Connection, row: tuple[Any, ...]) -> None:
    """``row`` is the owner, until when, the URL, the run and the label."""
    for statement in _TABLES:
        db.execute(statement)
    db.execute("INSERT INTO spool VALUES (?, ?, ?, ?, ?, 0, 0)", row)


def orphans(folder: Path) -> list[Path]:
    """The spools in a folder, whosever they are."""
    with suppress(OSError):
        return sorted(folder.glob(f"*{SUFFIX}"))
    return []


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that is there."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except BaseException:
        db.close()
        raise
    return db
