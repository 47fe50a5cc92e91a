"""What the tests of every config share: its numbers, and values that none of them may have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.inspect import FloatType, IntType, StructType, TupleType, Type, UnionType, type_info

Path = tuple[str | int, ...]


def numbers_of(kind: type[msgspec.Struct]) -> list[tuple[str, Path, IntType | FloatType]]:
    """Every number of a config and of the sections in it, by its path; lists of sections are looked into by nobody."""
    return [(_text(path), path, number) for path, number in _numbers(type_info(kind), ())]


def outside(number: IntType | FloatType) -> list[Any]:
    """Values that make no sense: of another type, not finite, and beyond each bound."""
    values: list[Any] = [math.nan, math.inf, -math.inf, True, "1", [1]]
    values += [10**400] if isinstance(number, FloatType) or number.le is not None or number.lt is not None else []
    values += [1.5] if isinstance(number, IntType) else []
    values += [bound for bound in (number.gt, number.lt) if bound is not None]
    values += [number.ge - 1] if number.ge is not None else []
    values += [number.le + 1] if number.le is not None else []
    return values


def section(path: Path, value: Any) -> Any:
    """Plain values with one at a path."""
    for part in reversed(path):
        value = {part: value} if isinstance(part, str) else [0.5] * part + [value] + [0.5] * (1 - part)
    return value


def _numbers(kind: Type, path: Path) -> Iterator[tuple[Path, IntType | FloatType]]:
    if isinstance(kind, IntType | FloatType):
        yield path, kind
    elif isinstance(kind, UnionType):
        for part in kind.types:
            yield from _numbers(part, path)
    elif isinstance(kind, StructType):
        for field in kind.fields:
            yield from _numbers(field.type, (*path, field.encode_name))
    elif isinstance(kind, TupleType):
        for index, part in enumerate(kind.item_types):
            yield from _numbers(part, (*path, index))


def _text(path: Path) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
