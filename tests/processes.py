"""What tests ask of processes that they have not started themselves."""

from __future__ import annotations

import time

import psutil


def runs(pid: int) -> bool:
    """Whether there is such a process; one that has ended and that nobody has waited for is none."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def ends(pid: int, *, within: float = 20.0) -> bool:
    """Whether a process has ended within so many seconds: one that was killed takes a moment."""
    until = time.monotonic() + within
    while runs(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
