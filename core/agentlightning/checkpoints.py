"""The files of runs' checkpoints: how they are written, where they are, how large, and how they go."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Container
from pathlib import Path

from agentlightning.store.base import Checkpoint, RunRecord
from agentlightning.store.database import FILE_MODE

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in its own."""


RECORDED = "recorded.msgpack"
"""What a run learns from that deployed agents were recorded to do, in its folder."""


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that only its owner may read: durable, and there as a whole or not at all."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    part.touch(FILE_MODE)
    part.write_bytes(data)
    _sync(part)
    part.replace(path)
    _sync(path.parent)


def write_checkpoint(directory: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The new folder of a ``name``, in that of a run, which ``write(folder)`` has filled: durable, and beside the ones
    before, so that these stay whole until the new one counts."""
    folder = directory / CHECKPOINTS / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    write(folder)
    for path in [*folder.rglob("*"), folder, folder.parent]:
        _sync(path)
    return folder.absolute()


def remove_checkpoints(directory: Path, kind: str, *, but: Container[str]) -> None:
    """Removes the checkpoints in a run's folder whose names begin with ``kind``, but for those of some names."""
    for path in (directory / CHECKPOINTS).glob(f"{kind}-*"):
        if path.name not in but:
            shutil.rmtree(path, ignore_errors=True)


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
