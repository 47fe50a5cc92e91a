"""A search that is written synchronously, in a thread of its own: what it asks for is run by the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from agentlightning.bounded import GRACE_SECONDS
from agentlightning.threads import Abandoned, call_in_thread

T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]


class Bridge:
    """Runs one synchronous function. What that asks for runs in the task that serves it: where this is cancelled, so is
    the work, and the thread ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Queue[tuple[Work, Future[Any]] | None] = asyncio.Queue()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """In the thread: what ``work()`` gives. Where that raises, `Abandoned` ends the thread, past every ``except
        Exception`` of its code."""
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._asked.put_nowait, (work, answer))
        return answer.result()

    async def serve(self, function: Callable[[], T]) -> T:
        """What the function gives, run in a thread. Raises what it raises, and what the work that it asked for did."""

        def run() -> T:
            try:
                return function()
            finally:
                self._loop.call_soon_threadsafe(self._asked.put_nowait, None)

        thread = asyncio.ensure_future(call_in_thread(run))
        answer: Future[Any] | None = None
        try:
            while (asked := await self._asked.get()) is not None:
                work, answer = asked
                answer.set_result(await work())
            return await thread
        finally:
            if not thread.done():
                thread.cancel()
                if answer is not None and not answer.done():
                    answer.set_exception(Abandoned())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._turn_away(), GRACE_SECONDS)

    async def _turn_away(self) -> None:
        """Until the thread has ended: what it asks for as it cleans up is not done."""
        while (asked := await self._asked.get()) is not None:
            asked[1].set_exception(Abandoned())
