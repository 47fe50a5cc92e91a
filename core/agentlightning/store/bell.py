"""What wakes those who wait for a store, on whichever event loop they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Bell:
    """Rung from any thread, heard on the event loop of each that listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def ring(self) -> None:
        """Sets the event of everybody who listens."""
        with self._lock:
            listening = list(self._listening)
        for loop, event in listening:
            with suppress(RuntimeError):  # its loop has been closed
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """An event of the running loop that `ring` sets, inside the block."""
        listener = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listening.add(listener)
        try:
            yield listener[1]
        finally:
            with self._lock:
                self._listening.discard(listener)
