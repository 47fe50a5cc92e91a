"""Threads that cannot hold a process back, and the one event loop of a process."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

from agentlightning.errors import AdapterError

P = ParamSpec("P")
T = TypeVar("T")

SIGNALS_HEARD_WITHIN = 0.5
"""Seconds."""

CALL_THREAD = "agentlightning-call"
"""The name of the threads in which synchronous agents and rewards run."""


class Abandoned(BaseException):
    """Raised in a thread whose result nobody waits for any more, so that it ends."""


class DaemonThreads(ThreadPoolExecutor):
    """An executor that runs each call in a daemon thread of its own.

    As an event loop's default executor it lets any number of synchronous agents (and synchronous nodes of
    asynchronous ones) wait for their model at the same time, where the standard pool has a few threads,
    and one that never returns hangs neither the run nor the interpreter's exit. As in a main thread,
    ``asyncio.get_event_loop()`` gives a loop that can be run.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with _event_loop_on_demand():
                    result = fn(*args, **kwargs)
            except (StopIteration, KeyboardInterrupt) as error:
                # An asyncio future takes no StopIteration, and would never be done (coroutines raise a RuntimeError
                # in its place, too); a KeyboardInterrupt from here would look like Ctrl-C where the loop runs.
                raised = RuntimeError(f"the function raised {type(error).__name__}")
                raised.__cause__ = error
                future.set_exception(raised)
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the future
                future.set_exception(error)
            else:
                future.set_result(result)

        def run() -> None:
            with suppress(Abandoned):
                call()

        threading.Thread(target=run, name=CALL_THREAD, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class _LoopOnDemand(asyncio.AbstractEventLoop):
    """Stands as a thread's event loop until it is first used: a loop has three open files, and few threads need one."""

    def __init__(self, runner: asyncio.Runner) -> None:
        object.__setattr__(self, "_runner", runner)
        object.__setattr__(self, "_loop", None)

    def __getattribute__(self, name: str) -> Any:
        loop = object.__getattribute__(self, "_loop")
        if loop is None:
            loop = object.__getattribute__(self, "_runner").get_loop()
            object.__setattr__(self, "_loop", loop)
            asyncio.set_event_loop(loop)
        return getattr(loop, name)


@contextmanager
def _event_loop_on_demand() -> Iterator[None]:
    runner = asyncio.Runner()
    asyncio.set_event_loop(_LoopOnDemand(runner))  # type: ignore[abstract]
    try:
        yield
    finally:
        runner.close()


_threads = DaemonThreads()


async def call_in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.to_thread` with a daemon thread of the call's own. When it is cancelled, the thread is told to end:
    `Abandoned` is raised in it, as soon as it runs Python code."""
    context = contextvars.copy_context()
    changing = threading.Lock()
    ident: int | None = None

    def call() -> T:
        nonlocal ident
        ident = threading.get_ident()
        try:
            return context.run(function, *args, **kwargs)
        finally:
            with changing:
                ident = None

    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, call)
    except asyncio.CancelledError:
        with changing:
            if ident is not None:
                raise_in_thread(ident, Abandoned)
        raise


def raise_in_thread(ident: int, error: type[BaseException]) -> None:
    """Raises an exception in another thread, as soon as it runs Python code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(error))


def needs_main_thread(error: BaseException) -> bool:
    """Whether it, or what caused it, says that only a main thread may do this (signals, and with them math_verify)."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        if isinstance(link, ValueError) and "only works in main thread" in str(link):
            return True
        seen.add(id(link))
        link = link.__cause__ or link.__context__
    return False


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
        _wait(outcome, loop)
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(cancel)
        _wait(outcome, loop)
        raise
    return outcome.result()


_given_up: dict[asyncio.AbstractEventLoop, str] = {}


def give_up_loop(loop: asyncio.AbstractEventLoop, reason: str) -> None:
    """Says that a loop is held for good: whoever waits for it in `run_on_process_loop` is told, and the next call has
    another loop."""
    _given_up[loop] = reason
    with _making_the_loop:
        _make_process_loop.cache_clear()


def _wait(outcome: Future[Any], loop: asyncio.AbstractEventLoop) -> None:
    """Waits until it is done, and hears Ctrl-C: where the system gives the signal to another thread than the main
    one, the main thread learns of it only when it wakes. Raises `AdapterError` where the loop was given up."""
    while not outcome.done():
        if loop in _given_up:
            raise AdapterError(_given_up[loop])
        wait([outcome], timeout=SIGNALS_HEARD_WITHIN)


def was_left(error: BaseException | None) -> bool:
    """Whether an exception is how a generator ends whose reader has left: that is no failure. One that nobody closed
    is closed by a task of its event loop, which may be cancelled in its turn, as at the end of `asyncio.run`."""
    if not isinstance(error, asyncio.CancelledError):
        return isinstance(error, GeneratorExit)
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no event loop here
        return False
    return any(task.cancelling() and type(task.get_coro()).__name__ == "async_generator_athrow" for task in tasks)
