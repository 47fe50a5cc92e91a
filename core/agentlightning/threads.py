"""Threads that cannot hold a process back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """An executor that runs each call in a daemon thread of its own.

    As an event loop's default executor it lets any number of synchronous agents (and synchronous nodes of
    asynchronous ones) wait for their model at the same time, where the standard pool has a few threads,
    and one that never returns hangs neither the run nor the interpreter's exit.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=call, name="agentlightning-call", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def use_daemon_threads(loop: asyncio.AbstractEventLoop) -> Any:
    """Makes `DaemonThreads` the loop's default executor, for `asyncio.to_thread` and ``run_in_executor``."""
    executor = DaemonThreads()
    loop.set_default_executor(executor)
    return executor
