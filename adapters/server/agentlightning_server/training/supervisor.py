"""The process that watches over one that trains: ``python -m … FOLDER MODULES``.

It keeps what that one writes, without secrets, and how it ends, so that neither is lost where the server is killed.
SIGTERM asks the training to end as Ctrl-C does; a second one kills it, with all that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from agentlightning.child_processes import kill_group
from agentlightning.errors import ConfigError
from agentlightning.redaction import begin_redacting, redact, remember
from agentlightning.store.owner import started_at
from agentlightning_server.training.folder import TrainingFolder
from agentlightning_server.training.records import Begun, Ended, Process, Start
from agentlightning_server.wire import KEY_VARIABLE

COMMAND = "train-submitted"
LINE_BYTES = 64 * 1024
"""A longer line is kept in parts."""
LAST_WORDS_SECONDS = 5.0
"""How long is waited for the end of the output, which somebody may hold open that the training has started."""


def main() -> None:
    folder, modules = TrainingFolder(Path(sys.argv[1])), sys.argv[2]
    start = folder.read("start", Start)
    assert start is not None
    begin_redacting()
    remember(os.environ.get(KEY_VARIABLE))
    with suppress(ConfigError):  # the training itself says so
        folder.config()  # its secrets are known from now on
    stops = _Stops()
    training = subprocess.Popen(
        [sys.executable, "-c", "from agentlightning.cli import main; main()", COMMAND, str(folder.path)],
        cwd=modules,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    process = Process(pid=training.pid, started=started_at(training.pid))
    folder.write("begun", Begun(session=start.session, process=process))
    stops.of(training)
    assert training.stdout is not None
    reading = threading.Thread(target=_keep, args=(training.stdout, folder), daemon=True)
    reading.start()
    code = training.wait()
    kill_group(training.pid)
    reading.join(LAST_WORDS_SECONDS)
    signalled = signal.Signals(-code).name if code < 0 else None
    ended = Ended(session=start.session, exit_code=None if signalled else code, signal=signalled)
    folder.write("ended", ended)
    folder.ring()


class _Stops:
    """Hands on what it is asked by signals, also what came before there was a process to hand it to."""

    def __init__(self) -> None:
        self._count = 0
        self._training: subprocess.Popen[bytes] | None = None
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def of(self, training: subprocess.Popen[bytes]) -> None:
        self._training = training
        if self._count:
            self._hand_on(training)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._count += 1
        if self._training is not None:
            self._hand_on(self._training)

    def _hand_on(self, training: subprocess.Popen[bytes]) -> None:
        if self._count > 1:
            kill_group(training.pid)
        else:
            training.terminate()


def _keep(output: IO[bytes], folder: TrainingFolder) -> None:
    with folder.log.open("a", encoding="utf-8") as log:
        while line := output.readline(LINE_BYTES):
            log.write(redact(line.decode(errors="replace")))
            log.flush()
            folder.ring()


if __name__ == "__main__":
    main()
