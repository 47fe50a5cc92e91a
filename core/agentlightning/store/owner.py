"""Which process holds a run or a lease, and whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import uuid
from pathlib import Path

import psutil

from agentlightning.records import Record

SAME_START = 2.0
"""Seconds within which two readings of a process's start are the same: a system knows its boot to the second."""


class Owner(Record, kw_only=True):
    """One open store in one process.

    ``machine`` names the machine, and on Linux its running kernel and process namespace: only there ``pid`` means this
    process. ``started`` is when the process began, in seconds: a later process of the same pid has another.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: float | None


def this_process() -> Owner:
    """A new owner in this process."""
    return Owner(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        started=started_at(os.getpid()),
    )


def has_ended(owner: Owner) -> bool | None:
    """Whether the owner's process is gone; None when that cannot be told from here."""
    if owner.started is None or owner.machine != _machine():
        return None
    try:
        started = started_at(owner.pid)
    except psutil.AccessDenied:
        return None
    return started is None or abs(started - owner.started) > SAME_START


def started_at(pid: int) -> float | None:
    """When a process began; None when there is no such process, or only its exit status is left.

    On Linux since the kernel's start: there the time of day of a start moves when the clock is set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        since = psutil.boot_time() if psutil.LINUX else 0.0
        return float(process.create_time() - since)
    except psutil.NoSuchProcess:
        return None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: no process namespaces
        return f"{sys.platform}/{uuid.getnode():x}"
