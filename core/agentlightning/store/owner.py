"""Which process holds a run or a lease, and whether it still lives."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from agentlightning.records import Record


class Owner(Record, kw_only=True):
    """One open store in one process.

    ``place`` names the running kernel and its process namespace: only there ``pid`` means this process.
    ``started`` is the process's start time in the kernel's clock ticks: a later process of the same pid
    has another. Both are empty where the system does not tell.
    """

    token: str
    host: str
    place: str | None
    pid: int
    started: int | None


def this_process() -> Owner:
    """A new owner in this process."""
    return Owner(
        token=secrets.token_hex(8),
        host=socket.gethostname(),
        place=_place(),
        pid=os.getpid(),
        started=_start_time(os.getpid()),
    )


def has_ended(owner: Owner) -> bool | None:
    """Whether the owner's process is gone; None when that cannot be told from here."""
    if owner.place is None or owner.started is None or owner.place != _place():
        return None
    return _start_time(owner.pid) != owner.started


def _place() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> int | None:
    """Field 22 of ``/proc/<pid>/stat`` (man proc_pid_stat); None when there is no such process, or only its
    exit status is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])
