"""The processes of a training, seen from the server: started, found again, and told from later ones of the same pid."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

from agentlightning.store.database import FOLDER_MODE
from agentlightning.store.owner import SAME_START, started_at
from agentlightning_server.errors import ServerError
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Process


def lock(root: Path) -> IO[bytes]:
    """Has a folder of trainings for this process alone, until the file is closed. Raises `ServerError`."""
    try:
        root.mkdir(mode=FOLDER_MODE, exist_ok=True)
        locked = (root / "lock").open("ab")
    except OSError as error:
        raise ServerError(f"--train-in: cannot write {root}: {error.strerror}; name a folder that is there") from error
    try:
        fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        locked.close()
        raise ServerError(f"--train-in: another server trains in {root.parent}; stop it, or name another") from None
    return locked


def start_supervisor(
    folder: TrainingFolder, modules: Path, environment: Mapping[str, str]
) -> tuple[Process, Callable[[], Any]]:
    """Starts the process that starts the training, and watches over it; and gives what waits for its end. What it
    writes itself (that it failed) goes to the log of the training."""
    with folder.log.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "agentlightning_server.training.supervisor", str(folder.path), str(modules)],
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return Process(pid=supervisor.pid, started=started_at(supervisor.pid)), supervisor.wait


def wait_for(process: Process) -> None:
    """Returns when a process has ended that may be nobody's child here."""
    with suppress(psutil.NoSuchProcess):
        if is_alive(process):
            psutil.Process(process.pid).wait()


def is_alive(process: Process) -> bool:
    """Whether it runs: this one, not a later one of the same pid."""
    started = started_at(process.pid)
    return started is not None and process.started is not None and abs(started - process.started) <= SAME_START


def ask_to_end(process: Process) -> None:
    """Sends SIGTERM, where it runs."""
    if is_alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
