"""Values in memory, bounded in bytes and in age: the one that was put longest ago goes first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Values by key, of ``max_bytes`` together at most, each for ``max_seconds`` at most after it was put.

    Age is looked at whenever something is put, so what is older may stay while nothing comes.
    """

    def __init__(self, max_bytes: int, max_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._clock = clock
        self._values: OrderedDict[str, tuple[T, int, float]] = OrderedDict()
        self.size = 0
        """Bytes, about."""

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: str, value: T, size: int) -> list[T]:
        """Keeps a value of about ``size`` bytes; returns those that had to go for want of room."""
        self.pop(key)
        self._values[key] = (value, size, self._clock())
        self.size += size
        removed = []
        while self._values:
            oldest, (value, _, at) = next(iter(self._values.items()))
            full = self.size > self._max_bytes
            if not full and self._clock() - at <= self._max_seconds:
                break
            if full:
                removed.append(value)
            self.pop(oldest)
        return removed

    def get(self, key: str) -> T | None:
        """The value, which stays."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def pop(self, key: str) -> T | None:
        """The value, which goes."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self.size -= found[1]
        return found[0]
