"""Rewards in processes of their own, each with a main thread, which signals need.

Python code that holds the interpreter's lock (a regular expression that backtracks) stops every thread of its process.
Here it stops only its own, which is killed at its limit.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
from typing import IO

from agentlightning.errors import RewardError
from agentlightning.records import Record, decode, encode
from agentlightning.scoring.component import Call, Component, Scored

START_SECONDS = 120.0
"""How long a process may take to import the reward's module."""
PROCESSES = os.cpu_count() or 1
"""How many run at once for one reward; calls beyond that wait."""

_LENGTH = struct.Struct("!Q")
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from agentlightning.scoring.worker import main; main()"
)


class Request(Record, kw_only=True):
    """One call of the reward, and how long it may take."""

    call: Call
    seconds: float


class Answer(Record, kw_only=True):
    """What each rollout of a call was given."""

    scored: list[Scored]


class Started(Record, kw_only=True):
    """A process is ready, or why it cannot be."""

    error: str | None = None


class RewardProcesses:
    """The processes of one reward: started when needed, kept for the next call, killed when they take too long."""

    def __init__(self, component: Component) -> None:
        self._component = component
        self._slots = threading.BoundedSemaphore(PROCESSES)
        self._changing = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    def score(self, call: Call, seconds: float) -> list[Scored]:
        """Blocks until the reward has scored. Raises `RewardError` when its process has ended or took too long."""
        spans = call.spans if self._component.wants_spans else [[] for _ in call.rollouts]
        request = encode(Request(call=Call(rollouts=call.rollouts, task=call.task, spans=spans), seconds=seconds))
        with self._slots:
            process = self._take()
            try:
                if not process.ready:
                    process.start(self._component)
                answer: Answer = decode(process.ask(request, seconds, "runner.reward_timeout"), Answer)
            except BaseException:
                process.kill()
                raise
            finally:
                self._put_back(process)
        return answer.scored

    def close(self) -> None:
        """Ends them all."""
        with self._changing:
            for process in [*self._idle, *self._busy]:
                process.kill()
            self._idle.clear()

    def _take(self) -> _Process:
        with self._changing:
            alive = [process for process in self._idle if process.alive]
            process = alive.pop() if alive else _Process()
            self._idle = alive
            self._busy.add(process)
            return process

    def _put_back(self, process: _Process) -> None:
        with self._changing:
            self._busy.discard(process)
            if process.alive:
                self._idle.append(process)


class _Process:
    def __init__(self) -> None:
        self.ready = False
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the process that waits, not for this one
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._requests: IO[bytes] = self._popen.stdin
        self._answers: IO[bytes] = self._popen.stdout

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def start(self, component: Component) -> None:
        started: Started = decode(self.ask(encode(component.spec), START_SECONDS, "the time for its import"), Started)
        if started.error is not None:
            raise RewardError(f"cannot be made in a process of its own: {started.error}")
        self.ready = True

    def ask(self, request: bytes, seconds: float, limit: str) -> bytes:
        too_long = threading.Event()

        def kill() -> None:
            too_long.set()
            self.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            write(self._requests, request)
            return read(self._answers)
        except (OSError, EOFError) as error:
            if too_long.is_set():
                raise RewardError(f"took longer than {limit} = {seconds:g} s") from error
            self.kill()
            raise RewardError(f"ended its process, with {ending(self._popen.wait())}") from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


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
    """Standard input and output of a process that is asked and answers there, kept for that: what its code prints goes
    to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what it prints must not stand between the answers
    return requests, answers


def ending(code: int) -> str:
    """How a process has ended, by its return code."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
