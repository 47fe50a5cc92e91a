"""Signals that ask a process to end are heard as Ctrl-C is: what runs is cancelled, closed and said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """A signal has asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(stop: KeyboardInterrupt) -> int:
    """128 and the signal's number, as shells have it: 130 for Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, Ended) else signal.SIGINT)


def reason(stop: KeyboardInterrupt) -> str:
    """``stopped``, and by which signal where it was not Ctrl-C."""
    return f"stopped by {stop}" if isinstance(stop, Ended) else "stopped"


def stop_event() -> threading.Event:
    """For a command that serves, and ends well so: an event that Ctrl-C and SIGTERM set from now on."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


@contextmanager
def ending_by_signal() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise `Ended` in the main thread; one that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        for each in heard:  # a terminal that closes may say so twice; what is being closed is not broken off by that
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heard = [number for number in numbers if before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
