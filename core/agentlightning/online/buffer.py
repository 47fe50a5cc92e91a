"""From the agent to the disk: what happens is handed over at once, and written by a thread of its own.

The thread runs one event loop: one task writes what has come, the other hands it over to the store
(`agentlightning.online.delivery`). A process that is forked has no thread, and begins anew with a file of its own.

Waking an event loop takes a system call, in which the agent would let go of the interpreter's lock, and get it back
when the loop has done its part. So a second thread does that: it is woken without, and waits for the agent.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from agentlightning.online.delivery import Delivery
from agentlightning.online.production import Production
from agentlightning.online.spool import Item, Spool
from agentlightning.store.base import RunRecord
from agentlightning.threads import use_daemon_threads

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 32 * 1024**2
"""What may wait in memory for the disk."""
TOGETHER_SECONDS = 0.5
"""What comes within so long is written at once."""
OPEN_AGAIN_SECONDS = 10.0
STOP_SHARE = 0.8
"""Of the time to stop, what is for the last delivery."""


class Buffer:
    """Keeps what is handed to it in a file in ``folder``, and hands that over to the store at ``url``.

    It holds ``max_bytes`` at most: what does not fit is refused, whole rollouts at a time, the newest first, so that
    what was written stays. No method waits or raises, but `stop`, which waits. ``production`` is followed meanwhile.
    """

    def __init__(
        self, url: str, folder: Path, run: RunRecord, *, max_bytes: int, production: Production | None = None
    ) -> None:
        self.production = production
        self.url, self.folder, self.run, self.max_bytes = url, folder, run, max_bytes
        self.dropped = 0
        """Rollouts that this process has dropped."""
        self._lock = threading.Lock()
        self._queue: deque[Item] = deque()
        self._again: list[Item] = []
        self._waiting = 0
        self._used = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._wake: asyncio.Event
        self._awake = False
        self._came = threading.Event()
        self._stopping = False
        self._spool: Spool | None = None
        self._open_after = 0.0
        self._failed = False
        self._delivery: Delivery

    def forked(self) -> Buffer:
        """The buffer of a process that was forked from this one's."""
        return Buffer(self.url, self.folder, self.run, max_bytes=self.max_bytes, production=self.production)

    @property
    def used_bytes(self) -> int:
        return self._used

    def start(self) -> None:
        """Starts the thread, once."""
        with self._lock:
            if self._thread is None and not self._stopping:
                self._loop = asyncio.new_event_loop()
                self._wake = asyncio.Event()
                self._delivery = Delivery(self.url, self.folder, self._freed)
                self._thread = threading.Thread(target=self._run, name="agentlightning-live", daemon=True)
                self._thread.start()
                threading.Thread(target=self._wake_loop, name="agentlightning-live-wake", daemon=True).start()

    def put(self, item: Item) -> bool:
        """Hands something over; False, and nothing is kept, where it is too much."""
        size = item.size
        with self._lock:
            if self._stopping or self._thread is None:
                return False
            if size and (self._used + size > self.max_bytes or self._waiting + size > MAX_WAITING_BYTES):
                return False
            self._used += size
            self._waiting += size
            self._queue.append(item)
            wake, self._awake = not self._awake, True
            if item.kind == "drop":
                self._count_dropped()
        if wake:
            self._came.set()
        return True

    def stop(self, seconds: float) -> None:
        """Writes what has come, hands over what it can within the time, and leaves the rest to whoever attaches next
        with this folder."""
        with self._lock:
            thread, self._stopping = self._thread, True
        if thread is None:
            return
        self._came.set()
        deadline = time.monotonic() + seconds
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop, seconds * STOP_SHARE)
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logger.warning(
                "what was recorded could not all be written within %g s; what was is in %s", seconds, self.folder
            )

    def _wake_loop(self) -> None:
        while True:
            self._came.wait()
            self._came.clear()
            if self._stopping:
                return
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _stop(self, seconds: float) -> None:
        self._delivery.stop(seconds)
        self._wake.set()

    def _count_dropped(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "the buffer of recorded rollouts in %s is full (%d bytes): new rollouts are dropped whole until the "
                "store at %s has taken some; the live run's record says how many",
                *(self.folder, self.max_bytes, self.url),
            )

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception:
            logger.exception("deployed agents are not recorded any more in this process")
        finally:
            with self._lock:
                self._stopping = True
            self._came.set()
            self._loop.close()

    async def _serve(self) -> None:
        use_daemon_threads(asyncio.get_running_loop())
        delivering = asyncio.create_task(self._delivery.run())
        following = asyncio.create_task(self.production.follow()) if self.production is not None else None
        self._delivery.own(self._open())
        while not self._stopping or self._queue or self._again:
            await self._wake.wait()
            if not self._stopping:
                await asyncio.sleep(TOGETHER_SECONDS)
            with self._lock:
                self._wake.clear()
                self._awake = False
                items = list(self._queue)
                self._queue.clear()
                self._waiting = 0
            self._write(items)
            if self._stopping:
                break
        self._delivery.written_all()
        if following is not None:
            following.cancel()
        await delivering
        if following is not None:
            await asyncio.gather(following, return_exceptions=True)

    def _write(self, items: list[Item]) -> None:
        """Writes what has come. Where the disk does not take it, the rollouts that it is of are dropped."""
        items = [*self._again, *items]
        if not items:
            return
        try:
            spool = self._open()
            if spool is None:
                raise OSError(f"{self.folder} cannot be written")
            freed = spool.write(items)
        except (OSError, sqlite3.Error) as error:
            self._log(error)
            freed = sum(item.size for item in items)
            self._again = [Item("drop", id) for id in dict.fromkeys(item.rollout_id for item in items)]
        else:
            self._again, self._failed = [], False
        self._freed(freed)
        if any(item.kind in ("end", "drop") for item in items):
            self._delivery.wake()

    def _open(self) -> Spool | None:
        if self._spool is not None and self._delivery.lost_own:
            self._spool = None  # another process has taken it over; what follows goes in a new one
            with self._lock:
                self._used = self._waiting
        if self._spool is None and time.monotonic() >= self._open_after:
            try:
                self._spool = Spool.new(self.folder, self.url, self.run)
                self._delivery.own(self._spool)
            except (OSError, sqlite3.Error) as error:
                self._open_after = time.monotonic() + OPEN_AGAIN_SECONDS
                self._log(error)
        return self._spool

    def _log(self, error: Exception) -> None:
        if not self._failed:
            logger.error(
                "deployed agents cannot be recorded: the buffer in %s cannot be written (%s); it is tried again",
                *(self.folder, error),
            )
        self._failed = True

    def _freed(self, size: int) -> None:
        with self._lock:
            self._used -= size
