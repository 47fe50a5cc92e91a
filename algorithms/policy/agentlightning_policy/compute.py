"""The one thread of this process in which torch computes.

On a CPU every thread that computes has a team of threads of its own (libgomp). As soon as the teams together have more
threads than there are cores, their members no longer spin while they wait for one another, but sleep; and each of the
thousand small operations of a sampling step pays for waking them (``tests/bench/waiting.py``).
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
_starting = threading.Lock()
_thread: threading.Thread | None = None
_ending = False

END_SECONDS = 30.0
"""How long the end of the process waits for one operation of torch's."""


def compute(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function in that thread, after what is waiting there, and returns what it does. In that thread: at
    once."""
    if threading.current_thread() is _thread:
        return function(*args, **kwargs)
    return _submit(partial(function, *args, **kwargs)).result()


async def compute_async(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same, while the event loop goes on. When it is cancelled, a function that has begun goes on to its end."""
    return await asyncio.wrap_future(_submit(partial(function, *args, **kwargs)))


def _submit(call: Callable[[], T]) -> Future[T]:
    global _thread
    if _ending:
        raise RuntimeError("this process ends: nothing is computed any more")
    with _starting:
        if _thread is None:
            _thread = threading.Thread(target=_run, name="agentlightning-compute", daemon=True)
            _thread.start()
            atexit.register(_end, _thread)
    future: Future[T] = Future()
    _work.put((future, call))
    return future


def _run() -> None:
    while not _ending:
        future, call = _work.get()
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            if not _ending:
                future.set_exception(error)
        else:
            if not _ending:
                future.set_result(result)
            del result
        del future, call  # what they refer to is not kept until the next comes


def _end(thread: threading.Thread) -> None:
    """Breaks off what is computed, at its next step in Python: an operation of torch's that came back to an interpreter
    which is gone would abort the process, and with it the exit code.

    Whoever waits, in a thread that dies with the process, is told nothing: with a result or a traceback it would get
    tensors, and to free them then would abort the process just the same.
    """
    global _ending
    _ending = True
    assert thread.ident is not None  # it has started
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    _work.put((Future(), lambda: None))  # where nothing is computed it waits for work, in no step of Python
    thread.join(END_SECONDS)
