"""Where in the user's own code something happened: not in a library, not in the standard library, not in here."""

from __future__ import annotations

import asyncio
import functools
import gc
import linecache
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from agentlightning.threads import CALL_THREAD

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_SHELLS = ("<stdin>", "<ipython-input")


def origin(error: BaseException) -> str | None:
    """``file:line`` of the user's code that an exception came from; None where none of it took part.

    Of an exception that others caused, the first that was raised in the user's code; else the line of theirs that
    called the library which raised.
    """
    called: str | None = None
    for link in causes(error):
        frames = [(frame, line) for frame, line in _frames(link) if _is_callers(frame)]
        if frames and frames[-1] == _last(link):
            return _where(frames[-1][0].f_code, frames[-1][1])
        if frames:
            called = _where(frames[-1][0].f_code, frames[-1][1])
    return called


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those behind it: what caused it, what it was raised in the handling of, and of a group the
    first of its exceptions."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            link = link.exceptions[0]
        else:
            link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def definition(function: Any) -> str | None:
    """``file:line`` of a function; None for what has no code in Python."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return _where(code, code.co_firstlineno) if isinstance(code, CodeType) else None


def caller() -> str | None:
    """``file:line`` of the user's code that the current call comes from; None in a thread of a library's own."""
    return location_of(sys._getframe(1))


def location_of(frame: FrameType | None) -> str | None:
    """``file:line`` of the innermost of the user's code around a frame; None where there is none."""
    while frame is not None and not _is_callers(frame):
        frame = frame.f_back
    return _where(frame.f_code, frame.f_lineno) if frame is not None else None


def running_now(tasks: Iterable[asyncio.Task[Any]] = ()) -> list[str]:
    """The innermost lines of the user's code, ``file:line: code``, that run at the moment in threads of synchronous
    agents and rewards, and in the given tasks: where it hangs, when it does."""
    places = []
    for frame in [*map(_frame_of_task, tasks), *_frames_of_calls()]:
        while frame is not None and not _is_callers(frame):
            frame = frame.f_back
        if frame is not None:
            code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            places.append(f"{_where(frame.f_code, frame.f_lineno)}: {code}")
    return list(dict.fromkeys(places))


def _frame_of_task(task: asyncio.Task[Any]) -> FrameType | None:
    """The innermost frame of the user's in what a task waits for."""
    innermost: FrameType | None = None
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if isinstance(frame, FrameType) and _is_callers(frame):
            innermost = frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
    return innermost


def frames_of_threads() -> dict[int, FrameType]:
    """The innermost frame of each thread, by its ident.

    Python holds a lock on all threads meanwhile. A collection of garbage would close sockets under it, which lets other
    threads go on, and one that begins a thread waits for that lock with the GIL: neither ever ends (CPython issue
    106883).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if was_enabled:
            gc.enable()


def _frames_of_calls() -> Iterator[FrameType]:
    calls = {thread.ident for thread in threading.enumerate() if thread.name == CALL_THREAD}
    return (frame for ident, frame in frames_of_threads().items() if ident in calls)


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame, step.tb_lineno
        step = step.tb_next


def _last(error: BaseException) -> tuple[FrameType, int] | None:
    return list(_frames(error))[-1]


def _is_callers(frame: FrameType) -> bool:
    """Whether a frame is of code that is neither installed nor ours."""
    module = str(frame.f_globals.get("__name__", ""))
    if module == "agentlightning" or module.startswith(("agentlightning.", "agentlightning_")):
        return False
    name = frame.f_code.co_filename
    if name.startswith("<"):
        return name.startswith(_SHELLS)
    path = os.path.abspath(name)
    return not any(part in path for part in _INSTALLED) and not path.startswith(_libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(os.path.join(path, "") for path in [*paths, site.getusersitepackages()] if path)


def _where(code: CodeType, line: int) -> str:
    name = code.co_filename
    with suppress(OSError):  # the current directory may be gone
        path, here = Path(os.path.abspath(name)), Path.cwd()
        if not name.startswith("<") and path.is_relative_to(here):
            name = str(path.relative_to(here))
    return f"{name}:{line}"
