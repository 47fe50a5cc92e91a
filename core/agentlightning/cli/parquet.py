"""Rows of `agentlightning.cli.export` as Parquet; needs pyarrow, the extra ``data``.

Token ids are ``list<int32>``, logprobs ``list<float>``. What has no fixed shape (inputs, outputs, messages,
attributes …) is JSON text, in columns whose metadata says ``format: json``.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from importlib import import_module
from types import NoneType, TracebackType, UnionType
from typing import Any, BinaryIO

import msgspec
import numpy as np

from agentlightning.errors import DataError

BATCH_ROWS = 500
JSON = {b"format": b"json"}

_json = msgspec.json.Encoder(enc_hook=repr)


def columns_of(record: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a record's fields, by name."""
    return {field.name: field.type for field in msgspec.structs.fields(record)}


class RowWriter:
    """Writes rows with ``columns`` (types by name) to an open file, `BATCH_ROWS` at a time. Raises `DataError` without
    pyarrow."""

    def __init__(self, file: BinaryIO, columns: Mapping[str, Any]) -> None:
        try:
            pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
        except ImportError as error:
            raise DataError("Parquet needs pyarrow: pip install pyarrow") from error
        self._arrow = pyarrow
        self._schema = _schema(pyarrow, columns)
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


def _schema(arrow: Any, columns: Mapping[str, Any]) -> Any:
    return arrow.schema([_field(arrow, name, kind) for name, kind in columns.items()])


def _field(arrow: Any, name: str, kind: Any) -> Any:
    """The column of a record's field ``name`` of type ``kind``; JSON text where it has no fixed shape."""
    kinds = _alternatives(kind) - {NoneType}
    kind = kinds.pop() if len(kinds) == 1 else Any
    if kind in (str, int, float, bool):
        of = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
        return arrow.field(name, of[kind])
    if kind is np.ndarray:
        return arrow.field(name, arrow.list_(arrow.float32() if name == "logprobs" else arrow.int32()))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return arrow.field(name, arrow.struct([_field(arrow, *column) for column in columns_of(kind).items()]))
    if typing.get_origin(kind) is list:
        item = _field(arrow, "item", typing.get_args(kind)[0])
        if item.metadata != JSON:
            return arrow.field(name, arrow.list_(item.type))
    return arrow.field(name, arrow.string(), metadata=JSON)


def _alternatives(kind: Any) -> set[Any]:
    """The types of a union; literals count as their values' type."""
    if typing.get_origin(kind) in (UnionType, typing.Union):
        return {part for each in typing.get_args(kind) for part in _alternatives(each)}
    return {type(value) for value in typing.get_args(kind)} if typing.get_origin(kind) is typing.Literal else {kind}
