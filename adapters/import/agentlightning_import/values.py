"""Texts, times and numbers, as exports write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

_MILLISECONDS = 1e11
"""A number of seconds since the epoch above this is one of milliseconds."""


def first(record: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of the names that a record has, and that is not empty text; else None."""
    for name in names:
        value = record.get(name)
        if value is not None and value != "":
            return value
    return None


def text(record: Mapping[str, Any], *names: str) -> str | None:
    """The same as text."""
    value = first(record, *names)
    return None if value is None else as_text(value)


def mapping(value: Any) -> dict[str, Any]:
    """The mapping that a value is, or is as JSON; an empty one else."""
    value = parsed(value)
    return value if isinstance(value, dict) else {}


def parsed(value: Any) -> Any:
    """The object or list that was written as JSON text; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value


def as_text(value: Any) -> str:
    """A value as text: text as it is, nothing as none, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def seconds(value: Any) -> float | None:
    """A time in seconds since the epoch: of ISO 8601, UTC where it names no zone, or of a number of seconds or
    milliseconds. None for none, and for what is no time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        found = value / 1000 if value > _MILLISECONDS else float(value)
        return found if math.isfinite(found) and found >= 0 else None
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def number(value: Any) -> float | None:
    """A finite number, also as text or a truth value; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def count(value: Any) -> int:
    """A number of tokens; 0 for anything else."""
    found = number(value)
    return int(found) if found is not None and found > 0 else 0
