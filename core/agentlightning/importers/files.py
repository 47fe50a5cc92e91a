"""The files of an export → its records: JSON, JSON Lines or CSV, compressed with gzip or not.

{"id": …}                     one record
[{"id": …}, …]                each of them
{"data": [{"id": …}, …]}      a page of an API: each of them
{"id": …}⏎{"id": …}           JSON Lines: each line as above
"""

from __future__ import annotations

import codecs
import csv
import gzip
import sys
from collections.abc import Iterator
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from agentlightning.errors import DataError
from agentlightning.importers.base import Row, Unread
from agentlightning.loading import explain

PAGES = ("data", "runs", "traces", "observations", "scores", "feedback", "items")
"""The keys under which APIs and exports give a list of records."""
SAMPLE = 20
"""Records that are looked at to tell a format."""
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_NAMED = ("id", "trace_id", "traceId", "resourceSpans", "resourceLogs", "messages")
"""A record with one of these is no page, whatever else it has."""

_raw: msgspec.json.Decoder[msgspec.Raw] = msgspec.json.Decoder(msgspec.Raw)
_list: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_map: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def sample_of(path: Path) -> list[dict[str, Any]]:
    """The first records of a file that are JSON objects. Raises `DataError` for one that cannot be read."""
    decoded = []
    for row in islice(rows_of(path, Unread()), SAMPLE):
        record = row.decoded()
        if isinstance(record, dict):
            decoded.append(record)
    return decoded


def rows_of(path: Path, unread: Unread) -> Iterator[Row]:
    """The records of a file. A line that is no JSON is told to ``unread``.

    Raises `DataError` for a file that is not there, is no text or has no record.
    """
    try:
        with _open(path) as file:
            found = _rows_of_csv(path, file) if _is_csv(path) else _rows_of_json(path, file, unread)
            count = 0
            for row in found:
                count += 1
                yield row
            if not count:
                raise DataError(f"{path}: there is no record in it")
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {explain(error)}") from error


def _open(path: Path) -> BufferedIOBase:
    with path.open("rb") as file:
        begin = file.read(4)
    if begin == _PARQUET:
        raise DataError(f"{path} is Parquet, which is not read: export as JSON Lines, JSON or CSV")
    return gzip.open(path) if begin[:2] == _GZIP else path.open("rb")


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".csv")


def _rows_of_csv(path: Path, file: BufferedIOBase) -> Iterator[Row]:
    """Cells as texts; empty ones are left out."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(line.decode("utf-8-sig" if first == 0 else "utf-8") for first, line in enumerate(file))
    for record in reader:
        cells = {name: cell for name, cell in record.items() if name is not None and cell not in (None, "")}
        yield Row(f"{path.name}:{reader.line_num}", msgspec.json.encode(cells))


def _rows_of_json(path: Path, file: BufferedIOBase, unread: Unread) -> Iterator[Row]:
    first = next((line for line in file if line.strip()), b"").removeprefix(codecs.BOM_UTF8)
    if first and not _is_json(first):
        whole = first + file.read()
        if _is_json(whole):
            yield from _records(path.name, whole)
            return
        if not first.lstrip().startswith(b"{") or not any(map(_is_json, whole.splitlines()[1:])):
            raise DataError(f"{path} is not JSON, nor JSON Lines: {_what_is_wrong(whole)}")
    file.seek(0)
    for number, line in enumerate(file, start=1):
        line = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
        if not line:
            continue
        where = f"{path.name}:{number}"
        if _is_json(line):
            yield from _records(where, line)
        else:
            unread.add("line", f"it is no JSON: {_what_is_wrong(line)}", where)


def _records(where: str, content: bytes) -> Iterator[Row]:
    content = content.strip()
    if content.startswith(b"["):
        for index, item in enumerate(_list.decode(content)):
            yield Row(f"{where}[{index}]", bytes(item))
        return
    if content.startswith(b"{"):
        fields = _map.decode(content)
        page = next((name for name in PAGES if name in fields and bytes(fields[name]).lstrip().startswith(b"[")), None)
        if page is not None and not any(name in fields for name in _NAMED):
            yield from _records(f"{where} {page}", bytes(fields[page]))
            return
    yield Row(where, content)


def _is_json(content: bytes) -> bool:
    return _what_is_wrong(content) is None


def _what_is_wrong(content: bytes) -> str | None:
    try:
        content.decode()
        _raw.decode(content)
    except UnicodeDecodeError:
        return "it is not UTF-8"
    except RecursionError:
        return "it is nested too deep"
    except msgspec.DecodeError as error:
        return str(error).partition(" (byte")[0]
    return None
