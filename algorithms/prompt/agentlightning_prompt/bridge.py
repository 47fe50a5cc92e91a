"""A search that is written synchronously, in a thread of its own: what it asks for is run by the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from agentlightning.threads import Abandoned, call_in_thread

T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]


class Ended(BaseException):
    """Ends the thread, past every ``except Exception`` of its code: what it asked for could not be done."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Bridge:
    """Runs one synchronous function. What that asks for runs in the task that serves it: where this is cancelled, so is
    the work, and the thread ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Queue[tuple[Work, Future[Any]] | None] = asyncio.Queue()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """In the thread: what ``work()`` gives. Raises `Ended` where it raises."""
        answer: Future[T] = Future()
        self._loop.call_soon_threadsafe(self._asked.put_nowait, (work, answer))
        return answer.result()

    async def serve(self, function: Callable[[], T]) -> T:
        """What the function gives, run in a thread. Raises what it raises, and what the work that it asked for did."""
        thread = asyncio.ensure_future(call_in_thread(function))
        thread.add_done_callback(lambda _: self._asked.put_nowait(None))
        waiting: Future[Any] | None = None
        try:
            while (asked := await self._asked.get()) is not None:
                work, waiting = asked
                try:
                    result = await work()
                except Exception as error:  # noqa: BLE001 - ends the thread, and is raised here
                    waiting.set_exception(Ended(error))
                else:
                    waiting.set_result(result)
            return await thread
        except Ended as ended:
            raise ended.error from None
        finally:
            if not thread.done():
                if waiting is not None and not waiting.done():
                    waiting.set_exception(Abandoned())
                thread.cancel()
                await asyncio.wait([thread])
