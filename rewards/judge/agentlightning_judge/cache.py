"""Replies of a judge, kept on disk: what was asked before, by whatever run or process, is not asked again."""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

logger = logging.getLogger(__name__)

FILE = "replies.db"
BUSY_SECONDS = 10.0


class ReplyCache:
    """The replies in a folder, by key. Safe for several threads and processes.

    A folder that cannot be used, or a file that is damaged, costs money and no rollout: it is said once, and everything
    is asked.
    """

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / FILE
        self._lock = threading.Lock()
        self._ready = self._failed = False

    def get(self, key: str) -> str | None:
        """The reply under a key; None where there is none."""
        found = self._run("SELECT reply FROM replies WHERE key = ?", (key,))
        return found[0][0] if found and isinstance(found[0][0], str) else None

    def put(self, key: str, reply: str) -> None:
        """Keeps a reply; what is there under its key is replaced."""
        self._run("INSERT OR REPLACE INTO replies (key, reply) VALUES (?, ?)", (key, reply))

    def _run(self, statement: str, values: tuple[str, ...]) -> list[tuple[str]]:
        with self._lock:
            if self._failed:
                return []
            try:
                if not self._ready:
                    self._prepare()
                with closing(self._connect()) as connection:
                    return connection.execute(statement, values).fetchall()
            except (OSError, sqlite3.Error) as error:
                self._failed = True
                logger.warning(
                    "%s cannot be used, so this judge is asked everything anew: %s; remove the file, or name another "
                    "folder (`cache`)",
                    self._path,
                    error,
                )
                return []

    def _prepare(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL)")
        self._ready = True

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
