"""What a task expects: one value or several, or nothing."""

from __future__ import annotations

import math
from typing import Any


def accepted(expected: Any) -> list[Any]:
    """The values of which one must be the answer; none where the task does not say.

    Files write what is missing in their own ways: an empty cell, NaN, an empty list.
    """
    values = expected if isinstance(expected, list | tuple | set | frozenset) else [expected]
    return [value for value in values if not _is_missing(value)]


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, list | tuple | dict) and not value)
