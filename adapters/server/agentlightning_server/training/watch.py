"""Waiting for news of a training, without looking again and again."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path


class Watch:
    """Tells those who wait of what is said through the pipe of a training, or rung here."""

    def __init__(self) -> None:
        self._news: asyncio.Future[None] | None = None
        self._pipe: int | None = None

    def news(self) -> asyncio.Future[None]:
        """Done when something is new after this call."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def ring(self) -> None:
        """There is something new."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None

    def listen(self, path: Path) -> None:
        """Rings whenever something is written into the pipe at ``path``, until `close`."""
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # open for writing, too: then it has no end
        asyncio.get_running_loop().add_reader(self._pipe, self._heard)

    def close(self) -> None:
        """Listens no more, and rings a last time."""
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
        self.ring()

    def _heard(self) -> None:
        assert self._pipe is not None
        with suppress(BlockingIOError):
            os.read(self._pipe, 65536)
        self.ring()
