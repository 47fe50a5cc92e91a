"""SQLite databases, read only and within limits: whatever a model writes, nothing changes, and it ends soon."""

import re
import sqlite3
import time
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "databases"
SECONDS = 2.0
ROWS = 10_000
CELL_BYTES = 10_000
TABLE_BYTES = 5_000_000
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: CELL_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
FUNCTIONS = """
    abs avg coalesce count date datetime glob group_concat ifnull iif instr julianday length like lower ltrim max min
    nullif rank replace round row_number rtrim strftime substr substring sum time total trim typeof upper
"""
QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/""", re.DOTALL)
"""Text, quoted names and comments, as SQLite reads them."""


class QueryError(Exception):
    """A query that was refused, failed, or went over a limit; the message is for the model."""


class Guard:
    """What a query may do, and until when: SQLite asks while it compiles a query, and while it runs one."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds

    def is_late(self) -> bool:
        return time.monotonic() > self.ends

    def authorize(self, action: int, _: str | None, name: str | None, *__: str | None) -> int:
        reads = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        calls = action == sqlite3.SQLITE_FUNCTION and str(name).lower() in FUNCTIONS.split()
        return sqlite3.SQLITE_OK if (reads or calls) and not self.is_late() else sqlite3.SQLITE_DENY


def path_of(database: str) -> Path:
    """The file of a database; raises QueryError where there is none of this name."""
    path = FOLDER / f"{database}.sqlite"
    if not path.is_file():
        raise QueryError(f"no database {database!r} in {FOLDER}: run tasks.py")
    return path


def connect(path: Path) -> sqlite3.Connection:
    """A connection that cannot write; text that is no UTF-8 loses its odd bytes."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda text: text.decode(errors="ignore")
    return connection


def run_query(path: Path, sql: str) -> list[tuple]:
    """The rows of one SELECT; raises QueryError."""
    if re.search(r"\bwith\b", QUOTED.sub(" ", sql), re.IGNORECASE):
        raise QueryError("WITH is not allowed")  # a dozen that name one another take SQLite minutes to compile
    guard = Guard(SECONDS)
    connection = connect(path)
    try:
        for limit, value in LIMITS.items():
            connection.setlimit(limit, value)
        connection.set_authorizer(guard.authorize)
        connection.set_progress_handler(guard.is_late, 1_000)
        return read_rows(connection.execute(sql))
    except (sqlite3.Error, sqlite3.Warning, ValueError, MemoryError) as error:
        reason = f"it took more than {SECONDS:g} seconds" if guard.is_late() else str(error) or "out of memory"
        raise QueryError(reason) from None
    finally:
        connection.close()


def read_rows(cursor: sqlite3.Cursor) -> list[tuple]:
    """All rows, as long as they are few and small."""
    if cursor.description is None:
        raise QueryError("no query")
    rows, size = [], 0
    for row in cursor:
        rows.append(row)
        size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
        if len(rows) > ROWS or size > TABLE_BYTES:
            raise QueryError(f"more than {ROWS} rows, or {TABLE_BYTES} bytes")
    return rows


def describe(path: Path) -> str:
    """The schema in short: a line for each table, as ``singer(singer_id, name, country)``."""
    connection = connect(path)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return "\n".join(f"{table}({', '.join(columns_of(connection, table))})" for table in tables)
    finally:
        connection.close()


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def extract_sql(answer: str) -> str:
    """The query in what a model wrote: the first block of code, else what begins with SELECT, up to an empty line."""
    answer = answer.encode(errors="ignore").decode()  # half a surrogate pair could not be sent back
    block = re.search(r"```(?:sql\b|sqlite\b)?(.*?)(?:```|\Z)", answer, re.DOTALL | re.IGNORECASE)
    if block:
        return block[1].strip()
    query = re.search(r"\bselect\b.*?(?=\n\s*\n|\Z)", answer, re.DOTALL | re.IGNORECASE)
    return query[0].strip() if query else answer.strip()
