"""Rows of `agentlightning.cli.export` as Parquet; needs pyarrow, the extra ``data``.

Token ids are ``list<int32>``, logprobs ``list<float>``. What has no fixed shape (inputs, outputs, messages,
attributes …) is JSON text, in columns whose metadata says ``format: json``.
"""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from agentlightning.errors import DataError

BATCH_ROWS = 500

_json = msgspec.json.Encoder(enc_hook=repr)


class RowWriter:
    """Writes rows of one kind to an open file, `BATCH_ROWS` at a time. Raises `DataError` without pyarrow."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        try:
            pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError as error:
            raise DataError("Parquet needs pyarrow: pip install pyarrow") from error
        self._arrow = pyarrow
        self._schema = _schemas(pyarrow)[what]
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._batch: list[dict[str, Any]] = []

    def write(self, row: dict[str, Any]) -> None:
        """Takes a row; writes when a batch is full."""
        self._batch.append({field.name: self._fitted(row.get(field.name), field) for field in self._schema})
        if len(self._batch) == BATCH_ROWS:
            self._flush()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._batch:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._batch, self._schema))
        self._batch = []

    def _fitted(self, value: Any, field: Any) -> Any:
        if value is None:
            return None
        if field.metadata == JSON:
            return _json.encode(value).decode()
        kind = field.type
        if self._arrow.types.is_struct(kind):
            return {inner.name: self._fitted(value.get(inner.name), inner) for inner in kind}
        if self._arrow.types.is_list(kind) and self._arrow.types.is_struct(kind.value_type):
            return [self._fitted(item, kind.value_field) for item in value]
        return value


JSON = {b"format": b"json"}


def _schemas(arrow: Any) -> dict[str, Any]:
    text, integer, real = arrow.string(), arrow.int64(), arrow.float64()
    ids, logprobs = arrow.list_(arrow.int32()), arrow.list_(arrow.float32())

    def json(name: str) -> Any:
        return arrow.field(name, text, metadata=JSON)

    def fields(kind: Any, *names: str) -> list[Any]:
        return [arrow.field(name, kind) for name in names]

    def struct(name: str, *inner: Any) -> Any:
        return arrow.field(name, arrow.struct(inner))

    def many(name: str, inner: Any) -> Any:
        return arrow.field(name, arrow.list_(inner.type))

    failure = struct("failure", *fields(text, "type", "message", "fault", "exception", "traceback", "where"))
    reward = struct(
        "reward",
        *fields(text, "name", "span_id", "reason"),
        *fields(real, "value", "weight", "at"),
        arrow.field("step", arrow.bool_()),
    )
    generation = struct(
        "generation",
        *map(json, ("messages", "tools", "response")),
        *fields(text, "model", "finish_reason", "provenance", "policy"),
        struct("usage", *fields(integer, "input_tokens", "output_tokens")),
        *fields(ids, "prompt_ids", "response_ids"),
        *fields(logprobs, "logprobs"),
        *fields(real, "temperature"),
        *fields(integer, "policy_version"),
    )
    span = [
        *fields(text, "id", "rollout_id"),
        *fields(integer, "attempt", "index"),
        *fields(text, "parent_id", "kind", "name", "agent"),
        *fields(real, "started_at", "ended_at"),
        json("attributes"),
        generation,
        reward,
        failure,
    ]
    rollout = [
        *fields(text, "id", "run_id", "group_id", "task_id", "purpose", "variant", "collection"),
        *fields(integer, "step", "sample", "attempt"),
        *fields(text, "status"),
        *map(json, ("resources", "output")),
        *fields(real, "outcome", "total_reward"),
        many("rewards", reward),
        failure,
        many("failed_attempts", failure),
        *fields(real, "created_at", "started_at", "ended_at"),
        struct("task", *fields(text, "id"), *map(json, ("input", "expected", "metadata"))),
        many("spans", struct("span", *span)),
    ]
    transition = [
        *fields(text, "run_id", "purpose", "variant", "task_id", "group_id", "rollout_id", "span_id", "agent"),
        *fields(integer, "step", "row", "start", "end"),
        *fields(ids, "prompt_ids", "response_ids"),
        *fields(logprobs, "logprobs"),
        *fields(real, "temperature"),
        *fields(text, "policy"),
        *fields(integer, "policy_version"),
        *fields(real, "reward", "outcome", "total_reward"),
    ]
    spans = [*fields(text, "run_id", "purpose", "variant", "task_id"), *fields(integer, "step"), *span]
    return {"rollouts": arrow.schema(rollout), "spans": arrow.schema(spans), "transitions": arrow.schema(transition)}
