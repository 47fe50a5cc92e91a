"""Threads that cannot hold a process back, and the one event loop of a process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SIGNALS_HEARD_WITHIN = 0.5
"""Seconds."""

CALL_THREAD = "agentlightning-call"
"""The name of the threads in which synchronous agents and rewards run."""


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

        threading.Thread(target=call, name=CALL_THREAD, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def use_daemon_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Makes `DaemonThreads` the loop's default executor, for `asyncio.to_thread` and ``run_in_executor``."""
    loop.set_default_executor(DaemonThreads())


_making_the_loop = threading.Lock()


def _process_loop() -> asyncio.AbstractEventLoop:
    with _making_the_loop:
        return _make_process_loop()


@cache
def _make_process_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=_run_whatever_is_raised, args=(loop,), name="agentlightning-loop", daemon=True).start()
    return loop


def _run_whatever_is_raised(loop: asyncio.AbstractEventLoop) -> None:
    """A task that ends with SystemExit or KeyboardInterrupt hands it to its waiter, and stops the loop besides."""
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue


def run_on_process_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the process's own event loop, in its thread, and waits; not from that thread.

    It is always the same loop: agents keep asynchronous clients (LangChain caches its own), and a client that
    has seen one loop fails on the next. Ctrl-C cancels the coroutine, lets it clean up, and is raised.
    """
    loop = _process_loop()
    outcome: Future[T] = Future()
    tasks: list[asyncio.Task[T]] = []

    def start() -> None:
        tasks.append(loop.create_task(coroutine))
        tasks[0].add_done_callback(finish)

    def finish(task: asyncio.Task[T]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    def cancel() -> None:
        if tasks:
            tasks[0].cancel()
        else:
            coroutine.close()
            outcome.cancel()

    try:
        loop.call_soon_threadsafe(start)
        _wait(outcome)
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(cancel)
        _wait(outcome)
        raise
    return outcome.result()


def _wait(outcome: Future[Any]) -> None:
    """Waits until it is done, and hears Ctrl-C: where the system gives the signal to another thread than the main
    one, the main thread learns of it only when it wakes."""
    while not outcome.done():
        wait([outcome], timeout=SIGNALS_HEARD_WITHIN)
