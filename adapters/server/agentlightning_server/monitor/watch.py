"""The shares of failures, watched: which of them changed beyond chance (`agentlightning.share_changes`).

There is one detector for each failure of each use, within the rollouts of one run and one purpose: what is evaluated is
sampled otherwise than what is trained on. Each rollout counts once, as the steps of one depend on each other.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Mapping

from agentlightning.records import Fault, Rollout
from agentlightning.share_changes import FailureChange, ShareDetector
from agentlightning.store.tries import ended_at
from agentlightning_server.monitor.tries import Failures, Use

MAX_WATCHED = 2_000
"""Uses; of more, those that were tried last."""
MAX_TYPES = 20
"""Types of failures of one use."""
MAX_TIMES = 1_000

Stream = tuple[str, str, Use]
"""The run, the purpose, and the use."""


class ShareWatch:
    """Takes what attempts came to, and gives back what changed."""

    def __init__(self) -> None:
        self._streams: OrderedDict[Stream, _Stream] = OrderedDict()

    def add(self, rollout: Rollout, uses: Mapping[Use, Failures]) -> list[FailureChange]:
        """Counts an attempt that has ended; the changes that it shows."""
        changes: list[FailureChange] = []
        for use, failures in uses.items():
            key = (rollout.run_id, rollout.purpose, use)
            stream = self._streams.setdefault(key, _Stream(key))
            self._streams.move_to_end(key)
            changes += stream.add(rollout, failures)
        while len(self._streams) > MAX_WATCHED:
            self._streams.popitem(last=False)
        return changes


class _Stream:
    """The rollouts in which one use was tried."""

    def __init__(self, key: Stream) -> None:
        self._key = key
        self._tried = 0
        self._times: list[tuple[int, float]] = []
        """When which try ended: of many, every second one, every fourth …"""
        self._every = 1
        self._watched: dict[str, _Watched] = {}

    def add(self, rollout: Rollout, failures: Failures) -> list[FailureChange]:
        at = ended_at(rollout)
        for type, fault in failures.items():
            if type not in self._watched and len(self._watched) < MAX_TYPES:
                self._watched[type] = _Watched(fault, self._tried)
        self._tried += 1
        self._remember(at)
        changes = []
        for type, watched in self._watched.items():
            begun = watched.begun
            if type in failures:
                watched.rollout_id, watched.fault = rollout.id, failures[type]
            change = watched.detector.add(type in failures)
            if change is not None:
                watched.begun = self._tried
                run_id, _, use = self._key
                changes.append(
                    FailureChange(
                        run_id=run_id,
                        purpose=rollout.purpose,
                        kind=use.kind,
                        agent=use.agent,
                        used=use.used,
                        type=type,
                        fault=watched.fault,
                        change=change,
                        changed_at=self._time_of(begun + change.tried_before),
                        noticed_at=at,
                        rollout_id=watched.rollout_id,
                    )
                )
        return changes

    def _remember(self, at: float) -> None:
        if self._tried % self._every == 0:
            self._times.append((self._tried, at))
        if len(self._times) > MAX_TIMES:
            self._times = self._times[1::2]
            self._every *= 2

    def _time_of(self, number: int) -> float:
        """When the try of that number ended, or the last one before it whose time is known."""
        place = bisect.bisect_right(self._times, number, key=lambda time: time[0])
        return self._times[max(0, place - 1)][1]


class _Watched:
    """One type of failure: its detector, which has counted the tries since number ``begun``."""

    def __init__(self, fault: Fault, successes: int) -> None:
        self.fault = fault
        self.begun = 0
        self.rollout_id = ""
        self.detector = ShareDetector()
        self.detector.add_successes(successes)
