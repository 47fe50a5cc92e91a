"""Processes of ours that run strangers' code: asked on their standard input, answering on their standard output.

Each is the first of a group of its own: Ctrl-C is for the process that waits, and what it has started ends with it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Generic, TypeVar

START_SECONDS = 120.0
"""How long a process may take to import what it runs."""
_LENGTH = struct.Struct("!Q")


class ProcessGoneError(Exception):
    """A process has ended in the middle of its work: by itself, or killed because it took too long."""

    def __init__(self, ending: str, *, too_long: bool) -> None:
        super().__init__(f"ended, with {ending}")
        self.ending = ending
        self.too_long = too_long


class ChildProcess:
    """A process that runs the function ``main`` of a module."""

    def __init__(self, module: str) -> None:
        program = f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main()"
        self._popen = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests: IO[bytes] = self._popen.stdin
        self._answers: IO[bytes] = self._popen.stdout

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @contextmanager
    def asked(self, request: bytes, seconds: float) -> Iterator[Callable[[], bytes]]:
        """Sends a request; inside the block the function given reads the next answer, and blocks until it is there.

        Raises `ProcessGoneError` where the process ends, or is killed because the block takes longer than ``seconds``.
        """
        too_long = threading.Event()

        def kill() -> None:
            too_long.set()
            self.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            write(self._requests, request)
            yield lambda: read(self._answers)
        except (OSError, EOFError) as error:
            self.kill()
            raise ProcessGoneError(ending(self._popen.returncode), too_long=too_long.is_set()) from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Ends the whole group, orphans included, and waits for its first process."""
        kill_group(self._popen.pid)
        self._popen.wait()


P = TypeVar("P", bound=ChildProcess)


class ProcessPool(Generic[P]):
    """Processes that ``make`` starts when they are needed, and that are kept for the next time."""

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self._changing = threading.Lock()
        self._idle: list[P] = []
        self._busy: set[P] = set()

    @contextmanager
    def process(self) -> Iterator[P]:
        """One that nobody else has inside the block. Where the block raises, it is killed."""
        with self._changing:
            alive = [process for process in self._idle if process.alive]
            process = alive.pop() if alive else self._make()
            self._idle = alive
            self._busy.add(process)
        try:
            yield process
        except BaseException:
            process.kill()
            raise
        finally:
            with self._changing:
                self._busy.discard(process)
                if process.alive:
                    self._idle.append(process)

    def close(self) -> None:
        """Ends them all."""
        with self._changing:
            for process in [*self._idle, *self._busy]:
                process.kill()
            self._idle.clear()


def write(stream: IO[bytes], message: bytes) -> None:
    """A message, after its length."""
    stream.write(_LENGTH.pack(len(message)) + message)
    stream.flush()


def read(stream: IO[bytes]) -> bytes:
    """The next message. Raises `EOFError` where there is none."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    message = stream.read(length)
    if len(message) < length:
        raise EOFError
    return message


def own_streams() -> tuple[IO[bytes], IO[bytes]]:
    """In such a process: its standard input and output, kept for requests and answers. What its code prints goes to
    standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what it prints must not stand between the answers
    return requests, answers


@contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """In such a process: ends it where the block takes longer. Nobody else does, where its parent was killed."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def kill_group(pid: int) -> None:
    """Ends the processes of a group, orphans included, whose first one has this id."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def ending(code: int) -> str:
    """How a process has ended, by its return code."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
