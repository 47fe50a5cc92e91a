"""Spans of traces that have had to do with no model so far: kept in memory until one has, for so long and so many."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from agentlightning_otel.pieces import Piece

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024**2
LONGEST_SECONDS = 300.0


class Waiting:
    """The pieces of traces, by trace. The trace that was last heard of longest ago goes first: after
    `LONGEST_SECONDS`, or, with a warning, when all together are more than `MOST_BYTES`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._traces: OrderedDict[str, tuple[float, int, list[Piece]]] = OrderedDict()
        self.size = 0
        """Bytes, about."""

    def add(self, trace: str, pieces: Sequence[Piece]) -> None:
        """Keeps pieces, with those of their trace that are here already."""
        known = self.pop(trace)
        size = sum(piece.size for piece in (*known, *pieces))
        self._traces[trace] = (self._clock(), size, [*known, *pieces])
        self.size += size
        self._let_go()

    def of(self, trace: str) -> list[Piece]:
        """The pieces of a trace."""
        _, _, pieces = self._traces.get(trace, (0.0, 0, []))
        return pieces

    def pop(self, trace: str) -> list[Piece]:
        """Gives up the pieces of a trace; none where there are none."""
        _, size, pieces = self._traces.pop(trace, (0.0, 0, []))
        self.size -= size
        return pieces

    def _let_go(self) -> None:
        over = 0
        while self._traces:
            trace, (at, _, pieces) = next(iter(self._traces.items()))
            full = self.size > MOST_BYTES
            if not full and self._clock() - at <= LONGEST_SECONDS:
                break
            over += len(pieces) if full else 0
            self.pop(trace)
        if over:
            logger.warning(
                "%d spans of traces without a model were let go: more than %d MiB of such waited",
                over,
                MOST_BYTES // 1024**2,
            )
