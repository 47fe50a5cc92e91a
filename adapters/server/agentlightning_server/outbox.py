"""What a client has handed over and the server has not acknowledged yet: spans and metrics, sent in batches."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from agentlightning.errors import StoreError
from agentlightning.loading import explain
from agentlightning_server.connection import closed
from agentlightning_server.wire import CHUNK_BYTES

logger = logging.getLogger(__name__)

WAITING_BYTES = 64 * 1024**2
"""Records that may wait to be sent; past that, whoever hands over more waits for the server."""

Send = Callable[[str, list[msgspec.Raw]], Awaitable[None]]
"""Has records acknowledged: the name of the method that takes them, and the records. Raises `StoreError`."""


class _Record(NamedTuple):
    method: str
    data: bytes


class Outbox:
    """Takes records from any thread; a task on ``loop`` sends them, one batch after another, in order.

    A batch that is not acknowledged is kept, up to `WAITING_BYTES` with what follows, and tried again when something is
    next handed over or waited for. Until that succeeds `add` raises the error, too.
    """

    def __init__(self, send: Send, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._send = send
        self._loop = loop
        self._name = name
        self._changed = threading.Condition()
        self._queue: deque[_Record] = deque()
        self._waiting = 0
        self._failure: StoreError | None = None
        self._closed = False
        self.handed_over = 0
        """Records so far."""
        self._acknowledged = 0
        self._wake = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    def add(self, method: str, records: Sequence[bytes]) -> None:
        """Hands over records. Returns at once, unless `WAITING_BYTES` wait already. Raises `StoreError`."""
        size = sum(map(len, records))
        with self._changed:
            while not (fits := self._fits(size)) and self._failure is None and not self._closed:
                self._changed.wait()
            if self._closed:
                raise closed(self._name)
            failure = self._failure
            if fits:
                self._queue.extend(_Record(method, data) for data in records)
                self._waiting += size
                self.handed_over += len(records)
            self._loop.call_soon_threadsafe(self._wake.set)
        if failure is not None:
            fate = "is kept in memory and tried again" if fits else "is too much to keep in memory, and lost"
            raise StoreError(f"{failure}; what is handed over now {fate}") from failure

    def close(self) -> None:
        """Takes no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            if self._waiting:
                logger.error("the store %s was closed with %d bytes that were not sent", self._name, self._waiting)

    async def acknowledged(self, position: int) -> None:
        """Returns when so many records (`handed_over`) are acknowledged. Raises `StoreError` when they cannot be."""
        if self._acknowledged >= position:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((position, waiter))
        self._wake.set()
        await waiter

    async def run(self) -> None:
        """Sends what is handed over, until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (batch := self._next_batch()) is not None:
                try:
                    await self._send(batch[0].method, [msgspec.Raw(record.data) for record in batch])
                except StoreError as error:
                    self._put_back(batch, error)
                    break
                except Exception as error:  # noqa: BLE001 - whoever waits is told; the task must live on
                    self._put_back(batch, StoreError(f"the store {self._name} cannot be written: {explain(error)}"))
                    break
                self._conclude(batch)

    def _fits(self, size: int) -> bool:
        return self._waiting == 0 or self._waiting + size <= WAITING_BYTES

    def _next_batch(self) -> list[_Record] | None:
        """Records for one method, of about `CHUNK_BYTES` at most; None where there is nothing to send."""
        batch: list[_Record] = []
        size = 0
        with self._changed:
            while self._queue and (not batch or self._queue[0].method == batch[0].method):
                size += len(self._queue[0].data)
                if batch and size > CHUNK_BYTES:
                    break
                batch.append(self._queue.popleft())
        return batch or None

    def _conclude(self, batch: list[_Record]) -> None:
        with self._changed:
            self._waiting -= sum(len(record.data) for record in batch)
            self._failure = None
            self._changed.notify_all()
        self._acknowledged += len(batch)
        ready = [waiter for position, waiter in self._waiters if position <= self._acknowledged]
        self._waiters = [(position, waiter) for position, waiter in self._waiters if position > self._acknowledged]
        for waiter in ready:
            if not waiter.done():
                waiter.set_result(None)

    def _put_back(self, batch: list[_Record], error: StoreError) -> None:
        with self._changed:
            self._queue.extendleft(reversed(batch))
            self._failure = error
            self._changed.notify_all()
        logger.error("%s; %d bytes wait to be sent", error, self._waiting)
        waiters, self._waiters = self._waiters, []
        for _, waiter in waiters:
            if not waiter.done():
                waiter.set_exception(type(error)(str(error)))
