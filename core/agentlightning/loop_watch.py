"""An async function that blocks holds the event loop, and with it every rollout. Nothing on the loop can help then: it
is watched from a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agentlightning.bounded import LIMITS, HeldLoop
from agentlightning.threads import give_up_loop, raise_in_thread
from agentlightning.tracebacks import frames_of_threads, location_of

logger = logging.getLogger(__name__)

LOOK_EVERY = 1.0
"""Seconds."""


@contextmanager
def watching_loop() -> Iterator[None]:
    """Watches the running loop inside the block.

    What `run_bounded` runs and holds the loop for longer than its own limit is interrupted, where it runs Python code.
    Where it waits in the system (``time.sleep``) nothing can interrupt it: once its limit has passed again, whoever
    waits for the process's loop is told (`agentlightning.threads.run_on_process_loop`).
    """
    stopped = threading.Event()
    arguments = (asyncio.get_running_loop(), threading.get_ident(), stopped)
    threading.Thread(target=_watch, args=arguments, name="agentlightning-loop-watch", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def _watch(loop: asyncio.AbstractEventLoop, ident: int, stopped: threading.Event) -> None:
    while not stopped.wait(LOOK_EVERY):
        answered = threading.Event()
        try:
            loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # the loop is closed
            return
        asked, interrupted = time.monotonic(), False
        while not answered.wait(LOOK_EVERY) and not stopped.is_set():
            task = asyncio.current_task(loop)
            limit = LIMITS.get(task) if task is not None else None
            if limit is None or time.monotonic() - asked < limit:
                continue
            message = (
                f"an async function has held the event loop for more than {limit:g} s, at {_line_of(ident)}: nothing "
                "else runs meanwhile. Await there, or make it a plain function, which runs in a thread"
            )
            if interrupted:
                give_up_loop(loop, message)
                return
            logger.error("%s", message)
            raise_in_thread(ident, HeldLoop)
            asked, interrupted = time.monotonic(), True


def _line_of(ident: int) -> str:
    return location_of(frames_of_threads().get(ident)) or "a line of a library"
