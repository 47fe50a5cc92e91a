"""Which tasks a step takes: fresh ones, and again those that the policy sometimes gets right.

A group whose rollouts all earn the same teaches nothing. Late in a run most fresh tasks are like that: the easy ones
are always right. Tasks whose last group had the largest spread are the ones to learn most from (Rutherford et al. 2024,
"No Regrets", section 4: learnability, p(1 − p) where rewards are 0 or 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentlightning.records import Task
from agentlightning.training_rows import Group


class Curriculum:
    """Mixes fresh tasks with earlier ones of large spread.

    ``replay`` is the share of a step's tasks, at most, that are earlier ones. A task whose rollouts all earned the same
    is passed over the next ``rest`` times that it comes up, as long as there are earlier ones to take its place.
    ``remembered`` is what `state` gave.
    """

    def __init__(
        self, tasks: Sequence[Task], replay: float, rest: int = 0, remembered: Mapping[str, Mapping[str, Any]] = {}
    ) -> None:
        self.replay = replay
        self.rest = rest
        self.spread: dict[str, float] = dict(remembered.get("spread", {}))
        """The standard deviation of the rewards of each task's last group."""
        self._resting: Counter[str] = Counter(remembered.get("resting", {}))
        self._tasks = {task.id: task for task in tasks}
        self._taken: set[str] = set()

    def choose(self, fresh: Sequence[Task]) -> list[Task]:
        """As many tasks as ``fresh`` holds: earlier ones in the place of those that rest, then of its last ones. None
        is taken twice in a step. The same for the same history."""
        resting = [task for task in fresh if self._resting[task.id] > 0]
        self._resting.subtract(task.id for task in resting)
        awake = [task for task in fresh if task not in resting]
        self._taken |= {task.id for task in fresh}
        free = self._tasks.keys() - self._taken
        earlier = [id for id, spread in self.spread.items() if spread > 0 and id in free]
        earlier.sort(key=lambda id: (-self.spread[id], id))
        again = [self._tasks[id] for id in earlier[: max(int(self.replay * len(fresh)), len(resting))]]
        self._taken |= {task.id for task in again}
        return [*[*awake, *resting][: len(fresh) - len(again)], *again]

    def observe(self, groups: Sequence[Group]) -> None:
        """Ends a step: remembers how the rewards of each of its groups spread, and which tasks rest."""
        self._taken.clear()
        for group in groups:
            rewards = [one.rollout.total_reward for one in group.rollouts if one.rollout.total_reward is not None]
            if len(rewards) > 1:
                self.spread[group.task.id] = float(np.std(rewards))
                self._resting[group.task.id] = 0 if self.spread[group.task.id] > 0 else self.rest

    def state(self) -> dict[str, dict[str, Any]]:
        """All that there is to remember, in plain values."""
        return {"spread": self.spread, "resting": {id: times for id, times in self._resting.items() if times > 0}}
