"""Tasks from files, data sets, functions and iterables; which of them a step takes."""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from agentlightning.config import TasksConfig
from agentlightning.errors import ConfigError, DataError
from agentlightning.loading import explain, load, nearest
from agentlightning.records import Task

FIELDS = ("id", "input", "expected")
HELD_OUT_SHARE = 0.2
MAX_HELD_OUT = 100

MAX_CELL_CHARACTERS = 2**30
"""Characters of a cell of a CSV file."""
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_EXPLAINED = {"unexpected end of data": "a quote is opened here, or below, and never closed"}

T = TypeVar("T")
Row = tuple[str, Any]
"""Where something stands, for the errors, and what stands there."""


def load_tasks(source: Any, *, limit: int | None = None, fields: Mapping[str, str] | None = None) -> list[Task]:
    """Tasks from a ``.jsonl``, ``.csv`` or ``.parquet`` file, ``hf:name[/config][:split]``, ``module:function``, or
    any iterable of dicts and `Task` objects (a Hugging Face data set in memory is one).

    Of a dict, ``input`` is what the agent gets, ``expected`` (or ``answer``) and every other key, as metadata,
    what rewards get. ``fields`` names other columns for these: ``{"input": "question"}``. Without an ``id`` a
    task is named by a hash of its content. At most ``limit`` tasks are read.

    Raises `DataError` that names the file and line, and says what to do: a missing file, a line that is no JSON,
    another encoding than UTF-8, no input, an id given twice, no tasks at all.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit {limit}: expected at least 1 task")
    fields = dict(fields or {})
    for name in fields:
        if name not in FIELDS:
            raise DataError(f"tasks.fields: {name!r} is no field of a task{nearest(name, FIELDS)}")
    tasks: list[Task] = []
    first_seen: dict[str, str] = {}
    copies: Counter[str] = Counter()
    for where, row in _rows(source):
        task = row if isinstance(row, Task) else _task(where, row, fields, copies)
        if task.id in first_seen:
            raise DataError(f"{where}: id {task.id!r} was given at {first_seen[task.id]} already")
        first_seen[task.id] = where
        tasks.append(task)
        if len(tasks) == limit:
            break
    if not tasks:
        raise DataError(f"{source if isinstance(source, str | Path) else 'tasks'}: no tasks in it")
    return tasks


def load_split(tasks: Any, held_out: Any, seed: int) -> tuple[list[Task], list[Task]]:
    """The tasks to train on and those held out, each as `load_tasks` takes them; or ``tasks`` a `TasksConfig`.

    Without ``held_out`` a part of the tasks is held out, the same for the same seed. Raises `DataError`.
    """
    if isinstance(tasks, TasksConfig):
        source = tasks
        train = load_tasks(source.train, limit=source.limit, fields=source.fields)
        rest = held_out if held_out is not None else source.held_out
        kept = load_tasks(rest, limit=source.held_out_limit, fields=source.fields) if rest is not None else None
    else:
        train = load_tasks(tasks)
        kept = load_tasks(held_out) if held_out is not None else None
    if kept is not None:
        return train, kept
    if len(train) < 2:
        raise DataError("one task is too few to hold any out: give tasks.held_out, or more tasks")
    return set_apart(train, min(max(1, round(len(train) * HELD_OUT_SHARE)), MAX_HELD_OUT), seed)


def set_apart(tasks: Sequence[Task], count: int, seed: int) -> tuple[list[Task], list[Task]]:
    """The tasks without ``count`` of them, and those: drawn by ``seed``, both in their order."""
    drawn = set(np.random.default_rng(seed).permutation(len(tasks))[:count].tolist())
    return (
        [task for index, task in enumerate(tasks) if index not in drawn],
        [task for index, task in enumerate(tasks) if index in drawn],
    )


def batch_of_step(items: Sequence[T], size: int, step: int, seed: int) -> list[T]:
    """The items of a step, from 1: each epoch in an order of its own, the same for the same seed.

    A batch that reaches over the end of an epoch goes on in the next; no item is left out.
    """
    positions = range((step - 1) * size, step * size)
    epochs = {position // len(items) for position in positions}
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(len(items)) for epoch in epochs}
    return [items[int(orders[position // len(items)][position % len(items)])] for position in positions]


def _rows(source: Any) -> Iterator[Row]:
    if isinstance(source, str | Path):
        return _named(str(source))
    if isinstance(source, Mapping):
        raise DataError(f"tasks: expected a list of tasks, got a mapping of {', '.join(map(str, source))}: pick one")
    if not isinstance(source, Iterable):
        raise DataError(f"tasks: expected a path, module:function or an iterable, got {type(source).__name__}")
    return _numbered("tasks", source)


def _named(source: str) -> Iterator[Row]:
    if source.startswith("hf:"):
        return _numbered(source, _hugging_face(source))
    readers = {".jsonl": _json_lines, ".csv": _csv, ".parquet": _parquet}
    path = Path(source).expanduser()
    reader = readers.get(path.suffix.lower())
    if reader is not None:
        return _read(path, reader(path))
    if ":" in source:
        return _numbered(source, _call(source))
    raise DataError(f"{source}: expected a file ({', '.join(readers)}), hf:name or module:function")


def _numbered(name: str, rows: Iterable[Any]) -> Iterator[Row]:
    return ((f"{name}[{index}]", row) for index, row in enumerate(rows))


def _read(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except FileNotFoundError:
        raise DataError(f"no task file at {path.absolute()}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not text.strip():
                continue
            try:
                yield f"{path}:{number}", msgspec.json.decode(text)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not JSON: {error}{_hint(text)}") from error


def _hint(line: bytes) -> str:
    """What to do about a line that is no JSON; nothing where that is plain from the error."""
    if line.startswith(_UTF_16) or b"\0" in line:
        return "; the file is UTF-16, or damaged: save it as UTF-8"
    if _is_not_utf8(line):
        return "; save the file as UTF-8"
    stripped = line.strip()
    if stripped in (b"[", b"{") or stripped.startswith(b"[") or stripped.endswith(b","):
        return "; a .jsonl file has one object on each line, with no commas and no brackets around them"
    return ""


def _csv(path: Path) -> Iterator[Row]:
    # The limit is the whole process's. A cell may hold a document; the default is 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL_CHARACTERS))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(_without_nul(path, file), strict=True)
        line = 1
        try:
            columns = list(reader.fieldnames or ())
            twice = [name for name, count in Counter(columns).items() if count > 1]
            if twice:
                raise DataError(f"{path}:1: the column {twice[0]!r} is there twice")
            if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
                raise DataError(f"{path}:1: the only column is {columns[0]!r}: separate columns by commas")
            for row in reader:
                cells = len(columns) - list(row.values()).count(None) + len(row.get(None) or ())
                if cells != len(columns):
                    raise DataError(
                        f"{path}:{reader.line_num}: expected the {len(columns)} columns of the header, got {cells}; "
                        'text with a comma in it stands in "quotes"'
                    )
                yield f"{path}:{reader.line_num}", row
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}:{line}: not CSV: {_EXPLAINED.get(str(error), error)}") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{_first_line_not_utf8(path)}: not CSV in UTF-8: {error}; save it as UTF-8"
            ) from error


def _without_nul(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise DataError(f"{path}:{number}: a NUL byte: the file is UTF-16, or damaged; save it as UTF-8")
        yield line


def _first_line_not_utf8(path: Path) -> int:
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, 1) if _is_not_utf8(line)), 1)


def _is_not_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


def _parquet(path: Path) -> Iterator[Row]:
    arrow, parquet = _extra("pyarrow", path), _extra("pyarrow.parquet", path)
    with path.open("rb") as file:
        try:
            batches = parquet.ParquetFile(file).iter_batches(batch_size=1024)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))
        except (arrow.ArrowException, OSError) as error:  # pyarrow's name for a damaged file is OSError
            raise DataError(f"{path}: not Parquet: {error}") from error


def _hugging_face(source: str) -> Iterable[Any]:
    """``hf:owner/name``, then a config after a further slash; ``hf:folder`` is one with data files in it."""
    name, colon, split = source.removeprefix("hf:").rpartition(":")
    if not colon:
        name, split = split, "train"
    datasets = _extra("datasets", source)
    config = None
    if not Path(name).is_dir() and name.count("/") == 2:
        name, _, config = name.rpartition("/")
    try:
        rows: Iterable[Any] = datasets.load_dataset(name, config, split=split)
    except Exception as error:
        raise DataError(f"{source}: cannot be loaded: {explain(error)}") from error
    return rows


def _extra(module: str, source: object) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{source} needs {module}: pip install {module}") from error


def _call(target: str) -> Iterator[Any]:
    try:
        found = load(target)
    except ConfigError as error:
        raise DataError(f"tasks: {error}") from error
    try:
        rows = found() if callable(found) else found
        if isinstance(rows, str | Mapping) or not isinstance(rows, Iterable):
            raise DataError(f"{target}: expected it to give a list of tasks, got {type(rows).__name__}")
        yield from rows
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{target}: {explain(error)}") from error


def _task(where: str, row: Any, fields: Mapping[str, str], copies: Counter[str]) -> Task:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected keys and values, as in {{'input': …}}, got {type(row).__name__}")
    rest = dict(row)
    columns = _take(where, rest, fields)
    if columns.get("input") is None:
        keys = ", ".join(map(str, row)) or "none"
        raise DataError(f"{where}: no input; its keys: {keys}. tasks.fields names another: {{input: question}}")
    metadata = rest.pop("metadata", {})
    rest = {**metadata, **rest} if isinstance(metadata, Mapping) else {**rest, "metadata": metadata}
    id = columns.get("id")
    return Task(
        id=str(id) if id not in (None, "") else _hash(columns, rest, copies),
        input=columns["input"],
        expected=columns.get("expected"),
        metadata=rest,
    )


def _take(where: str, rest: dict[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    columns = {}
    for name in FIELDS:
        column = fields.get(name, name)
        if name in fields and column not in rest:
            raise DataError(f"{where}: no {column!r}, which tasks.fields names as {name}{nearest(column, rest)}")
        if column in rest:
            columns[name] = rest.pop(column)
    if "expected" not in columns and "answer" in rest:
        columns["expected"] = rest.pop("answer")
    return columns


def _hash(columns: Mapping[str, Any], rest: Mapping[str, Any], copies: Counter[str]) -> str:
    """The same for the same content, wherever it stands; the second of two copies gets ``-2``."""
    content = repr([sorted(part.items(), key=str) for part in (columns, rest)])
    id = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    copies[id] += 1
    return id if copies[id] == 1 else f"{id}-{copies[id]}"
