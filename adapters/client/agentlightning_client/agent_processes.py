"""Processes that run an agent, one rollout at a time each: what ends or hangs one is a failure of its rollout alone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO

from agentlightning.agent_here import Assignment, Keep, Performed
from agentlightning.errors import AdapterError
from agentlightning.records import Failure, Record, Span, decode, encode
from agentlightning.scoring.processes import START_SECONDS, ending, read, write
from agentlightning.threads import call_in_thread

GRACE_SECONDS = 10.0
"""How long past its time-out an agent is waited for that is to end by itself; then its process is killed."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from agentlightning_client.agent_process import main; main()"
)


class Agent(Record, kw_only=True):
    """What a process runs: the agent by name, for so many seconds at most."""

    name: str
    timeout: float


class Started(Record, kw_only=True, tag="started"):
    """A process is ready, or why it cannot be."""

    error: str | None = None


class Recorded(Record, kw_only=True, tag="recorded"):
    """Spans that have ended."""

    spans: list[Span]


class Ended(Record, kw_only=True, tag="ended"):
    """An attempt has ended."""

    performed: Performed


Answer = Started | Recorded | Ended


class AgentProcesses:
    """The processes of one agent: started when needed, kept for the next rollout, killed with all that they have
    started where they take too long or end."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    async def start(self) -> None:
        """Starts the first one. Raises `AdapterError` where it cannot load the agent."""
        process = self._take()
        try:
            await call_in_thread(process.start)
        finally:
            self._put_back(process)

    async def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Runs the agent once, in a process that runs nothing else meanwhile."""
        process = self._take()
        try:
            return await call_in_thread(process.perform, assignment, keep)
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            self._put_back(process)

    def close(self) -> None:
        """Ends them all."""
        for process in [*self._idle, *self._busy]:
            process.kill()
        self._idle.clear()

    def _take(self) -> _Process:
        alive = [process for process in self._idle if process.alive]
        process = alive.pop() if alive else _Process(self._agent)
        self._idle = alive
        self._busy.add(process)
        return process

    def _put_back(self, process: _Process) -> None:
        self._busy.discard(process)
        if process.alive:
            self._idle.append(process)


class _Process:
    """One process. It is the first of a group of its own, with all that the agent starts there."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._ready = False
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, json.dumps(sys.path)],
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

    def start(self) -> None:
        """Blocks until the agent is loaded. Raises `AdapterError` where it cannot be."""
        if self._ready:
            return
        try:
            answer = self._ask(encode(self._agent), START_SECONDS, lambda spans: None)
        except _GoneError as error:
            raise AdapterError(f"{self._agent.name}: its process {error} while it loaded the agent") from error
        if isinstance(answer, Started) and answer.error is None:
            self._ready = True
            return
        self.kill()
        raise AdapterError(f"{self._agent.name}: {answer.error if isinstance(answer, Started) else 'no answer'}")

    def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Blocks until the agent has ended, or its process has."""
        try:
            self.start()
            answer = self._ask(encode(assignment), self._agent.timeout + GRACE_SECONDS, keep)
        except AdapterError as error:  # it could be loaded before, in the first process
            return Performed(failure=Failure(type="not_runnable", message=str(error), fault="infrastructure"))
        except _GoneError as error:
            if error.was_killed:
                late = f"the agent took longer than runner.timeout = {self._agent.timeout:g} s, and did not stop"
                return Performed(failure=Failure(type="timeout", message=late))
            return Performed(failure=Failure(type="agent_error", message=f"the agent's process {error}"))
        if not isinstance(answer, Ended):
            raise TypeError(f"expected the end of an attempt, got {answer!r}")
        failure = answer.performed.failure
        if failure is not None and failure.type == "timeout":  # what it has started may run still
            self.kill()
        return answer.performed

    def _ask(self, request: bytes, seconds: float, keep: Keep) -> Started | Ended:
        """The answer to a request; spans that come before it are handed to ``keep``. Raises `_GoneError`."""
        too_long = threading.Event()

        def kill() -> None:
            too_long.set()
            self.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            write(self._requests, request)
            while True:
                answer: Answer = decode(read(self._answers), Answer)
                if not isinstance(answer, Recorded):
                    return answer
                keep(answer.spans)
        except (OSError, EOFError) as error:
            self.kill()
            raise _GoneError(ending(self._popen.returncode), was_killed=too_long.is_set()) from error
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Ends the whole group, orphans included, and waits for its first process."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


class _GoneError(Exception):
    """A process has ended in the middle of its work, or was killed because it took too long."""

    def __init__(self, how: str, *, was_killed: bool) -> None:
        super().__init__(f"ended, with {how}")
        self.was_killed = was_killed
