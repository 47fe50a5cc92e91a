"""A stranger's coroutine, run so that it can neither hang, nor cancel, nor end whoever waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long what is cancelled is waited for. Whoever does not end by then is left alone."""


class TimeLimitError(TimeoutError):
    """The limit of `run_bounded` has passed."""


class HeldLoop(BaseException):
    """Raised in a coroutine that has held the event loop for longer than its limit (`agentlightning.loop_watch`)."""


LIMITS: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
"""The seconds that each task which runs now has."""


@dataclass
class Outcome(Generic[T]):
    """What came of it: a value, or what was raised (`TimeLimitError` where the limit has passed)."""

    value: T | None = None
    error: BaseException | None = None


async def run_bounded(coroutine: Coroutine[Any, Any, T], *, seconds: float) -> Outcome[T]:
    """Runs it as a task of its own for at most ``seconds``.

    Whatever it raises is an outcome: a ``CancelledError`` of a task it cancelled itself, SystemExit and the like. Only
    the caller's own cancellation is raised here, after the task was cancelled too.
    """
    task = asyncio.create_task(_outcome(coroutine))
    LIMITS[task] = seconds
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await _give_up(task)
        raise
    if done and not isinstance(task.result().error, HeldLoop):
        return task.result()
    await _give_up(task)
    late = TimeLimitError(f"took longer than {seconds:g} s")
    late.__cause__ = task.result().error if task.done() else None  # where it was, as it was stopped
    return Outcome(error=late)


async def _outcome(coroutine: Coroutine[Any, Any, T]) -> Outcome[T]:
    try:
        return Outcome(value=await coroutine)
    except KeyboardInterrupt as error:
        if threading.current_thread() is threading.main_thread():
            raise  # Ctrl-C; in any other thread it is raised by code
        return Outcome(error=error)
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits
        return Outcome(error=error)


async def _give_up(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=GRACE_SECONDS)
