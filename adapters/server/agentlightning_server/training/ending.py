"""How a training has ended, from how its process has."""

from __future__ import annotations

import signal
import time

from agentlightning.cli.commands.signals import ENDING
from agentlightning_server.training.records import Ended, Training

ERROR = "error: "


def conclude(training: Training, ended: Ended | None, *, stops: int, last_words: str) -> None:
    """Writes into a training how it has ended. ``ended`` is None where nobody was left to tell; ``stops`` is how often
    it was asked to, and ``last_words`` the end of its log."""
    training.ended_at = time.time()
    training.exit_code = ended.exit_code if ended is not None else None
    training.signal = ended.signal if ended is not None else None
    if training.exit_code == 0:
        training.status, training.message = "succeeded", None
    elif stops or _was_asked_to_end(training.exit_code):
        training.status = "cancelled"
        training.message = training.message or "stopped by a signal"
    else:
        training.status = "failed"
        training.message = _why(training, last_words)


def _was_asked_to_end(code: int | None) -> bool:
    names = ("SIGINT", *ENDING)
    return code in [128 + getattr(signal, name) for name in names if hasattr(signal, name)]


def _why(training: Training, last_words: str) -> str:
    errors = [line.removeprefix(ERROR) for line in last_words.splitlines() if line.startswith(ERROR)]
    if training.signal is not None:
        return f"its process was ended by {training.signal}: killed by hand, or by the system for want of memory"
    if training.exit_code is None:
        return "its process is gone, and the one that watched over it"
    return errors[-1] if errors else f"its process ended with exit code {training.exit_code}"
