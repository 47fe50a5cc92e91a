"""Rewards in processes of their own, each with a main thread, which signals need.

Python code that holds the interpreter's lock (a regular expression that backtracks) stops every thread of its process.
Here it stops only its own, which is killed at its limit.
"""

from __future__ import annotations

import os
import threading

from agentlightning.child_processes import START_SECONDS, ChildProcess, ProcessGoneError, ProcessPool
from agentlightning.errors import RewardError
from agentlightning.records import Record, decode, encode
from agentlightning.scoring.component import Call, Component, Scored

PROCESSES = os.cpu_count() or 1
"""How many run at once for one reward; calls beyond that wait."""


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
        self._pool = ProcessPool(lambda: _RewardProcess(component))

    def score(self, call: Call, seconds: float) -> list[Scored]:
        """Blocks until the reward has scored. Raises `RewardError` when its process has ended or took too long."""
        spans = call.spans if self._component.wants_spans else [[] for _ in call.rollouts]
        request = Request(call=Call(rollouts=call.rollouts, task=call.task, spans=spans), seconds=seconds)
        with self._slots, self._pool.process() as process:
            return process.score(request)

    def close(self) -> None:
        """Ends them all."""
        self._pool.close()


class _RewardProcess(ChildProcess):
    def __init__(self, component: Component) -> None:
        super().__init__("agentlightning.scoring.worker")
        self._component = component
        self._ready = False

    def score(self, request: Request) -> list[Scored]:
        if not self._ready:
            self._start()
        answer: Answer = decode(self._answer(encode(request), request.seconds, "runner.reward_timeout"), Answer)
        return answer.scored

    def _start(self) -> None:
        loading = encode(self._component.spec)
        started: Started = decode(self._answer(loading, START_SECONDS, "the time for its import"), Started)
        if started.error is not None:
            raise RewardError(f"cannot be made in a process of its own: {started.error}")
        self._ready = True

    def _answer(self, request: bytes, seconds: float, limit: str) -> bytes:
        try:
            with self.asked(request, seconds) as answer:
                return answer()
        except ProcessGoneError as error:
            if error.too_long:
                raise RewardError(f"took longer than {limit} = {seconds:g} s") from error
            raise RewardError(f"ended its process, with {error.ending}") from error
