"""Which tasks a step takes: fresh ones, and again those that the policy sometimes gets right.

A group whose rollouts all earn the same teaches nothing. Late in a run most fresh tasks are like that: the easy ones
are always right. Tasks whose last group had the largest spread are the ones to learn most from (Rutherford et al. 2024,
"No Regrets", section 4: learnability, p(1 − p) where rewards are 0 or 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agentlightning.records import Task
from agentlightning.training_rows import Group


class Curriculum:
    """Mixes fresh tasks with earlier ones of large spread.

    ``replay`` is the share of a step's tasks, at most, that are earlier ones. ``spread`` maps a task's id to the
    standard deviation of its last group's rewards: all that there is to remember.
    """

    def __init__(self, tasks: Sequence[Task], replay: float, spread: Mapping[str, float] = {}) -> None:
        self.replay = replay
        self.spread = dict(spread)
        self._tasks = {task.id: task for task in tasks}
        self._taken: set[str] = set()

    def choose(self, fresh: Sequence[Task]) -> list[Task]:
        """As many tasks as ``fresh`` holds: earlier ones in the place of its last, none twice in a step. The same for the
        same history."""
        wanted = int(self.replay * len(fresh))
        self._taken |= {task.id for task in fresh}
        free = self._tasks.keys() - self._taken
        earlier = [id for id, spread in self.spread.items() if spread > 0 and id in free]
        earlier.sort(key=lambda id: (-self.spread[id], id))
        again = [self._tasks[id] for id in earlier[:wanted]]
        self._taken |= {task.id for task in again}
        return [*fresh[: len(fresh) - len(again)], *again]

    def observe(self, groups: Sequence[Group]) -> None:
        """Ends a step: remembers how the rewards of each of its groups spread."""
        self._taken.clear()
        for group in groups:
            rewards = [one.rollout.total_reward for one in group.rollouts if one.rollout.total_reward is not None]
            if len(rewards) > 1:
                self.spread[group.task.id] = float(np.std(rewards))
