"""What a run recorded, as rows for anything else: JSON lines or Parquet.

A row has every field of its record, defaults included; token ids and logprobs are lists.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np

from agentlightning.errors import DataError
from agentlightning.records import Rollout, Span, Task
from agentlightning.store.base import Store
from agentlightning.training_rows import Transition
from agentlightning.transitions import build_rows

What = Literal["rollouts", "spans", "transitions"]
Format = Literal["jsonl", "parquet"]
Row = dict[str, Any]

MAX_DEPTH = 100
PAGE = 256
"""Rollouts in memory at a time."""

_json = msgspec.json.Encoder(enc_hook=repr)


async def rows(store: Store, run_id: str, what: What) -> AsyncIterator[Row]:
    """The rows of a run, a page of rollouts and one rollout's spans in memory at a time.

    ``rollouts``: each with its task, its total reward and its spans. ``spans``: each with what its rollout was
    for, and its task. ``transitions``: each with its tokens and the number of its row in the rollout.
    """
    tasks = await store.tasks(run_id)
    make = {"rollouts": _rollout_rows, "spans": _span_rows, "transitions": _transition_rows}[what]
    async for rollout in _all(store, run_id):
        if not rollout.counts:
            continue
        spans = await store.spans(rollout.id)
        for row in make(rollout, tasks.get(rollout.task_id), spans):
            yield row


async def _all(store: Store, run_id: str) -> AsyncIterator[Rollout]:
    last = None
    while page := await store.rollouts(run_id, after=last, limit=PAGE):
        for rollout in page:
            yield rollout
        last = page[-1].id


async def export(store: Store, run_id: str, *, what: What, format: Format, path: Path | None) -> int:
    """Writes a run's rows to ``path`` (None: standard output, JSON lines only); returns how many.

    The file is there, whole, when this returns; a failure leaves what was there before. Raises `DataError`
    when it cannot be written.
    """
    write = {"jsonl": _write_json_lines, "parquet": _write_parquet}[format]
    count = 0

    async def counted() -> AsyncIterator[Row]:
        nonlocal count
        async for row in rows(store, run_id, what):
            count += 1
            yield row

    with _opened(path) as file:
        await write(counted(), file, what)
    return count


def plain(value: Any, depth: int = 0) -> Any:
    """A record as a dict of all of its fields, arrays as lists; and what is no plain value is left to the writer. What
    is nested deeper than any reader would follow is text."""
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name), depth + 1) for name in value.__struct_fields__}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict | list | tuple) and depth > MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    return value


def _rollout_rows(rollout: Rollout, task: Task | None, spans: list[Span]) -> Iterator[Row]:
    row = plain(rollout)
    yield {
        **row,
        "outcome": rollout.outcome,
        "total_reward": rollout.total_reward,
        "task": plain(task),
        "spans": plain(spans),
    }


def _about(rollout: Rollout) -> Row:
    return {name: getattr(rollout, name) for name in ("run_id", "purpose", "step", "variant", "task_id")}


def _span_rows(rollout: Rollout, task: Task | None, spans: list[Span]) -> Iterator[Row]:
    for span in spans:
        yield {**_about(rollout), **plain(span)}


def _transition_rows(rollout: Rollout, task: Task | None, spans: list[Span]) -> Iterator[Row]:
    for number, training_row in enumerate(build_rows(rollout, spans)):
        tokens, logprobs = training_row.token_ids, training_row.logprobs
        for transition in training_row.transitions:
            yield {
                **_about(rollout),
                "group_id": rollout.group_id,
                **plain(transition),
                "rollout_id": rollout.id,
                "row": number,
                "prompt_ids": tokens[: transition.start].tolist(),
                "response_ids": tokens[transition.start : transition.end].tolist(),
                "logprobs": logprobs[transition.start : transition.end].tolist(),
                "temperature": training_row.temperature,
                "outcome": rollout.outcome,
                "total_reward": rollout.total_reward,
            }


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


async def _write_json_lines(found: AsyncIterator[Row], file: BinaryIO, what: What) -> None:
    async for row in found:
        file.write(_json.encode(row) + b"\n")


async def _write_parquet(found: AsyncIterator[Row], file: BinaryIO, what: What) -> None:
    from agentlightning.cli.parquet import RowWriter, columns_of

    about = {"run_id": str, "purpose": str, "step": int, "variant": str, "task_id": str}
    rewards = {"outcome": float, "total_reward": float}
    tokens = {"row": int, **dict.fromkeys(("prompt_ids", "response_ids", "logprobs"), np.ndarray), "temperature": float}
    columns: dict[What, dict[str, Any]] = {
        "rollouts": {**columns_of(Rollout), **rewards, "task": Task, "spans": list[Span]},
        "spans": {**about, **columns_of(Span)},
        "transitions": {**about, "group_id": str, "rollout_id": str, **columns_of(Transition), **tokens, **rewards},
    }
    with RowWriter(file, columns[what]) as writer:
        async for row in found:
            writer.write(row)
