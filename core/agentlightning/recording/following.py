"""Threads that follow a context: work that is handed to a thread goes on in the context it was handed over in.

As OpenTelemetry's instrumentation of threading does: a `threading.Thread` (a `Timer`, any other subclass) has it for
as long as it runs; a `ThreadPoolExecutor` (also that of ``run_in_executor``) and a ``multiprocessing.pool.ThreadPool``
have it for one call, whoever made their threads, and when. What works through a queue of its own does not follow, nor
does another process.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from agentlightning.importing import when_imported
from agentlightning.patching import Patches

Values = tuple[tuple[ContextVar[Any], Any], ...]
"""Context variables, and the values that they are to have elsewhere."""

Capture = Callable[[bool], Values | None]
"""What is to be taken along from here, for a whole thread (True) or one call (False); None where nothing is, which is
to be known at once."""

_patches, _pool_patches = Patches(), Patches()
_making_workers = threading.local()
_capture: Capture = lambda _: None  # noqa: E731


def install(capture: Capture) -> None:
    """Patches what begins threads, once."""
    global _capture
    _capture = capture
    if not _patches.in_place:
        _patches.add((threading.Thread, "start", _start), (ThreadPoolExecutor, "submit", _submit))
        when_imported("multiprocessing.pool", _install_pool)


def uninstall() -> None:
    """Puts it back as it was."""
    _patches.remove()
    _pool_patches.remove()


def _install_pool() -> None:
    pool: Any = sys.modules["multiprocessing.pool"]
    calls = [(pool.Pool, name, _call_in_pool) for name in ("apply_async", "_map_async", "imap", "imap_unordered")]
    _pool_patches.add(*calls, (pool.ThreadPool, "__init__", _make_pool))


def _start(start: Callable[[], None], thread: threading.Thread, args: Any, kwargs: Any) -> None:
    values = None if getattr(_making_workers, "now", False) else _capture(True)
    if values is None:
        start()
        return
    run = thread.run

    def carried() -> None:
        vars(thread).pop("run", None)
        _call_with(values, run)

    thread.run = carried  # type: ignore[method-assign]
    try:
        start()
    except BaseException:
        vars(thread).pop("run", None)
        raise


def _submit(submit: Callable[..., Any], executor: Any, args: Any, kwargs: Any) -> Any:
    values = _capture(False)
    if values is None:
        return submit(*args, **kwargs)
    with _workers_belong_to_nobody():
        return submit(_call_with, values, *args, **kwargs)


def _call_in_pool(call: Callable[..., Any], pool: Any, args: Any, kwargs: Any) -> Any:
    values = _capture(False) if isinstance(pool, sys.modules["multiprocessing.pool"].ThreadPool) else None
    if values is None:
        return call(*args, **kwargs)
    return _with_function(call, values, *args, **kwargs)


def _with_function(
    call: Callable[..., Any], values: Values, func: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    return call(functools.partial(_call_with, values, func), *args, **kwargs)


def _make_pool(make: Callable[..., None], pool: Any, args: Any, kwargs: Any) -> None:
    with _workers_belong_to_nobody():
        make(*args, **kwargs)


@contextmanager
def _workers_belong_to_nobody() -> Iterator[None]:
    """A pool's threads outlive what they are made for: they have a context call by call."""
    before = getattr(_making_workers, "now", False)
    _making_workers.now = True
    try:
        yield
    finally:
        _making_workers.now = before


def _call_with(values: Values, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    tokens = [(variable, variable.set(value)) for variable, value in values]
    try:
        return function(*args, **kwargs)
    finally:
        for variable, token in tokens:
            variable.reset(token)
