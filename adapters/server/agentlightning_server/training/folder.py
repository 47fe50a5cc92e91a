"""The folder of a training: what the server, the process that trains, and the one that watches over it tell each other.

Each file has one writer, and is there whole or not at all, so that each of the three may be killed at any moment.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentlightning.config import Config, decode_section
from agentlightning.redaction import redact_config
from agentlightning.store.database import FOLDER_MODE
from agentlightning_server.training.records import Submission

T = TypeVar("T")

TRAININGS = "trainings"
PAGE_BYTES = 256 * 1024
"""Of a log, at once."""
TAIL_BYTES = 4 * 1024


class TrainingFolder:
    """The files of one training. Its run's folder lies in it, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.txt"
        self.grown = path / "grown"
        """A pipe: who has added to the log, or written another file, says so here."""

    @property
    def tasks(self) -> Path:
        return self.path / "tasks.jsonl"

    @property
    def held_out(self) -> Path:
        return self.path / "held_out.jsonl"

    def make(self, submission: Submission) -> None:
        """Makes the folder, readable by its owner only: a config may hold secrets."""
        self.path.mkdir(mode=FOLDER_MODE, parents=True)
        self.write("config", submission.config)
        _write_rows(self.tasks, submission.tasks)
        if submission.held_out is not None:
            _write_rows(self.held_out, submission.held_out)
        self.log.touch()
        os.mkfifo(self.grown, 0o600)

    def config(self) -> Config:
        """The config that was submitted, with the server's own files and folders in it. Its secrets are known from now
        on (`agentlightning.redaction`). Raises `ConfigError`."""
        config = self.read("config", dict[str, Any]) or {}
        tasks = {"train": str(self.tasks)} | ({"held_out": str(self.held_out)} if self.held_out.exists() else {})
        values = {**config, "tasks": tasks, "directory": str(self.path)}
        redact_config(values)
        return decode_section(values, Config)

    def write(self, name: str, value: Any) -> None:
        """Writes a record under its name, in the place of an earlier one."""
        path = self.path / f"{name}.json"
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(msgspec.json.encode(value))
        unfinished.replace(path)

    def read(self, name: str, kind: type[T]) -> T | None:
        """The record of this name; None where there is none."""
        try:
            return msgspec.json.decode((self.path / f"{name}.json").read_bytes(), type=kind)
        except FileNotFoundError:
            return None

    def page(self, after: int) -> tuple[str, int]:
        """The log from a byte on, as far as it is there, and from which byte on the next part is."""
        with self.log.open("rb") as file:
            file.seek(after)
            data = file.read(PAGE_BYTES)
        text, used = codecs.utf_8_decode(data, "replace", False)
        return text, after + used

    def tail(self) -> tuple[str, int]:
        """The last whole lines of the log, and where it ends."""
        size = self.log.stat().st_size
        text, end = self.page(max(0, size - TAIL_BYTES))
        return (text if size <= TAIL_BYTES else text.partition("\n")[2]), end

    def ring(self) -> None:
        """Tells the server that there is something new, if one runs."""
        with suppress(OSError):
            pipe = os.open(self.grown, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, b"!")
            finally:
                os.close(pipe)


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
