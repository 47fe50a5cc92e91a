"""Regular expressions that may backtrack: for a limited time, and without the interpreter's lock.

`regex` reads what `re` reads, and has both: ``re`` would stop every thread of the process.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from typing import Any

import regex

from agentlightning.errors import RewardError

SECONDS = 10.0
"""How long one pattern may take on one answer."""


class PatternError(ValueError):
    """The text is no regular expression."""


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """The pattern, compiled. Raises `PatternError`."""
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        raise PatternError(f"pattern {pattern!r} is no regular expression: {error}") from error


def matches(pattern: str, text: str) -> Iterator[Any]:
    """Every match of the pattern in the text. Raises `RewardError` after `SECONDS`."""
    until = time.monotonic() + SECONDS
    found = compiled(pattern).finditer(text, concurrent=True, timeout=SECONDS)
    try:
        for match in found:
            yield match
            if time.monotonic() > until:
                raise TimeoutError
    except TimeoutError as error:
        raise RewardError(
            f"the pattern {pattern!r} takes longer than {SECONDS:g} s on an answer of {len(text)} characters: it "
            "backtracks; write it without repetition in a repetition"
        ) from error
