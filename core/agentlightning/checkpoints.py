"""The files of runs' checkpoints: where they are, how large, and how they go."""

from __future__ import annotations

import shutil
from pathlib import Path

from agentlightning.store.base import Checkpoint, RunRecord

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in its own."""


def checkpoint_folders(run: RunRecord, last: Checkpoint | None) -> list[Path]:
    """The folders that hold a run's checkpoints, by its record and by its last one; only those that are there."""
    found = set()
    directory = run.config.get("directory")
    if isinstance(directory, str):
        found.add(Path(directory) / run.id / CHECKPOINTS)
    if last is not None and last.path is not None:
        folder = Path(last.path).parent
        if (folder.parent.name, folder.name) == (run.id, CHECKPOINTS):
            found.add(folder)
    return sorted(folder for folder in found if folder.is_dir())


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # gone meanwhile
            continue
    return total


def remove(folder: Path) -> int:
    """Removes a folder; returns how many bytes that freed. Raises `OSError` where it cannot."""
    freed = size_of(folder)
    shutil.rmtree(folder)
    return freed
