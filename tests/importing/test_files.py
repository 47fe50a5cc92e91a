"""The files that exports come in."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from agentlightning.errors import DataError
from agentlightning.importers.base import Unread
from agentlightning.importers.files import rows_of

A, B = {"id": "a"}, {"id": "b", "text": "zwölf"}


def records(path: Path) -> tuple[list[object], list[str]]:
    """Every record, and what could not be read."""
    unread = Unread()
    found = [row.decoded() for row in rows_of(path, unread)]
    return found, [f"{one.first}: {one.reason}" for one in unread.counts]


@pytest.mark.parametrize(
    "text",
    [
        f"{json.dumps(A)}\n{json.dumps(B)}\n",
        f"\n{json.dumps(A)}\n\n{json.dumps(B)}",
        json.dumps([A, B]),
        json.dumps([A, B], indent=2),
        json.dumps({"data": [A, B], "meta": {"page": 1}}),
        json.dumps({"data": [A, B], "meta": {"page": 1}}, indent=2),
        f"{json.dumps({'data': [A]})}\n{json.dumps({'data': [B]})}\n",
        f"\ufeff{json.dumps(A)}\n{json.dumps(B)}\n",
    ],
    ids=[
        "lines",
        "empty lines",
        "list",
        "list over lines",
        "page",
        "page over lines",
        "page a line",
        "byte order mark",
    ],
)
def test_records_are_found_however_a_file_has_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    assert records(tmp_path / "a.jsonl") == ([A, B], [])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert records(tmp_path / "a.jsonl.gz") == ([A, B], [])


def test_one_record_over_several_lines_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({**A, "observations": [B]}, indent=2))
    assert records(tmp_path / "a.json") == ([{**A, "observations": [B]}], [])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_is_cut_off_costs_itself_alone(tmp_path: Path, place: int) -> None:
    lines = [json.dumps(A), json.dumps(B)]
    lines.insert(place, '{"id": "cut')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    assert records(tmp_path / "a.jsonl") == ([A, B], [f"a.jsonl:{place + 1}: it is no JSON: Input data was truncated"])


def test_a_line_that_is_not_utf_8_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json.dumps(A).encode() + b'\n{"id": "\xff"}\n')
    assert records(tmp_path / "a.jsonl") == ([A], ["a.jsonl:2: it is no JSON: it is not UTF-8"])


def test_cells_of_a_csv_are_texts_and_empty_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('\ufeffid,input,n\na,"{""q"": 1,\n""r"": 2}",\n', encoding="utf-8")
    assert records(tmp_path / "a.csv") == ([{"id": "a", "input": '{"q": 1,\n"r": 2}'}], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "there is no record in it"),
        (b"[]", "there is no record in it"),
        (b"PAR1\x15\x04", "is Parquet, which is not read: export as JSON Lines"),
        (b'[{"id": "a"},\n{"id"', "is not JSON, nor JSON Lines: Input data was truncated"),
        (b'{\n "id": "a",\n "observ', "is not JSON, nor JSON Lines: Input data was truncated"),
        (b"id: a\n", "is not JSON, nor JSON Lines"),
        (gzip.compress(b'{"id": "a"}')[:-6], "cannot be read"),
    ],
    ids=["empty", "empty list", "parquet", "cut list", "cut record", "yaml", "cut gzip"],
)
def test_a_file_that_cannot_be_read_is_an_error_that_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        records(tmp_path / "a")
    assert str(tmp_path / "a") in str(raised.value)
