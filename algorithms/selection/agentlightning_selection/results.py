"""What the candidates' rollouts gave, task by task, and which of them is worth its price. Pure: it knows no agent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agentlightning_selection.config import FixedConfig
from agentlightning_selection.paired import p_greater


@dataclass(frozen=True)
class Verdict:
    """The candidate to publish; and where the best one is not shown to be better than others, that it is a tie."""

    winner: int
    tie: str | None = None


class Results:
    """Rewards, dollars and seconds of each of ``count`` candidates, by task."""

    def __init__(self, count: int, config: FixedConfig) -> None:
        self.spent = 0.0
        """Dollars."""
        self._config = config
        self._rewards: list[dict[str, float]] = [{} for _ in range(count)]
        self._values: list[dict[str, float]] = [{} for _ in range(count)]
        self._costs: list[dict[str, float]] = [{} for _ in range(count)]
        self._seconds: list[dict[str, float]] = [{} for _ in range(count)]
        self._least, self._most = math.inf, -math.inf

    def __len__(self) -> int:
        return len(self._rewards)

    def record(
        self, candidate: int, task_id: str, reward: float | None, cost: float, seconds: float | None = None
    ) -> None:
        """What one rollout was worth, None when it could not be scored; its dollars, and the seconds of its calls,
        None where it made none that was answered."""
        self.spent += cost
        self._costs[candidate][task_id] = cost
        if seconds is not None:
            self._seconds[candidate][task_id] = seconds
        if reward is None:
            return
        value = reward
        if self._config.objective == "reward":
            value -= self._config.cost_weight * cost + self._config.time_weight * (seconds or 0.0)
        self._rewards[candidate][task_id] = reward
        self._values[candidate][task_id] = value
        self._least, self._most = min(self._least, value), max(self._most, value)

    def runs(self, candidate: int) -> int:
        """How many tasks it ran on."""
        return len(self._costs[candidate])

    def is_scored(self, candidate: int) -> bool:
        """Whether any of its rollouts could be scored."""
        return bool(self._rewards[candidate])

    def reward(self, candidate: int) -> float:
        """Mean reward over the scored tasks; nan when there are none."""
        return _mean(self._rewards[candidate])

    def value(self, candidate: int) -> float:
        """Mean of what the objective looks for; −inf when no task was scored."""
        return _mean(self._values[candidate]) if self._values[candidate] else -math.inf

    def cost(self, candidate: int) -> float:
        """Mean dollars per rollout; nan before the first."""
        return _mean(self._costs[candidate])

    def seconds(self, candidate: int) -> float:
        """Mean seconds of the model calls per rollout; nan where none was answered."""
        return _mean(self._seconds[candidate])

    def expense(self, candidate: int) -> float:
        """What the objective would have least of: seconds where it is ``fastest``, else dollars."""
        return self.seconds(candidate) if self._config.objective == "fastest" else self.cost(candidate)

    def win_rate(self, candidate: int) -> float:
        """How often it does better than another one on the same task, ties counted half; nan without any."""
        others = [other for other in range(len(self)) if other != candidate]
        differences = np.concatenate([self.differences(candidate, other) for other in others])
        return float((np.sign(differences) / 2 + 0.5).mean()) if len(differences) else math.nan

    def leader(self, among: Sequence[int]) -> int:
        """The one with the greatest mean value."""
        return max(among, key=self.value)

    def ranked(self, among: Sequence[int]) -> list[int]:
        """The better before the worse, by the objective and the means so far."""
        best = self.leader(among)
        near = [one for one in among if self._is_near(best, one)]
        far = [one for one in among if one not in near]
        by_expense = self._config.objective != "reward"
        return [
            *sorted(near, key=lambda one: (self.expense(one) if by_expense else 0.0, -self.value(one))),
            *sorted(far, key=lambda one: -self.value(one)),
        ]

    def verdict(self, among: Sequence[int], labels: Sequence[str]) -> Verdict | None:
        """The best of some candidates by what is known; None when nothing could be scored.

        Where the objective is ``reward``, those that the leader is not significantly better than tie with it, and the
        cheapest of these is the winner.
        """
        scored = [one for one in among if self.is_scored(one)]
        if not scored:
            return None
        if self._config.objective != "reward":
            return Verdict(self.ranked(scored)[0])
        leader = self.leader(scored)
        level = (1 - self._config.confidence) / max(len(scored) - 1, 1)
        p_of = {one: self.p(leader, one, 0.0) for one in scored if one != leader}
        tied = [one for one, p in p_of.items() if p >= level]
        if not tied:
            return Verdict(leader)
        winner = min([leader, *tied], key=lambda one: (self.cost(one), -self.value(one)))
        against = "; ".join(self._compared(leader, one, p_of[one], labels) for one in tied)
        return Verdict(winner, f"{against}. {self._reason(winner, leader, [leader, *tied], labels)}")

    def differences(self, one: int, other: int) -> np.ndarray:
        """Value of ``one`` minus value of ``other`` on each task (N,) that both were scored on."""
        first, second = self._values[one], self._values[other]
        return np.array([value - second[task] for task, value in first.items() if task in second], np.float64)

    def mean_difference(self, one: int, other: int) -> float:
        """The mean of those; 0 where there are none."""
        differences = self.differences(one, other)
        return float(differences.mean()) if len(differences) else 0.0

    def p(self, one: int, other: int, shift: float) -> float:
        """One-sided p of ``one`` being better than ``other`` by more than ``shift``, on the same tasks."""
        differences = self.differences(one, other)
        return p_greater(differences, shift, self._most - self._least) if len(differences) else 1.0

    def pairs(self, one: int, other: int) -> int:
        """How many tasks both were scored on."""
        return len(self.differences(one, other))

    def _is_near(self, best: int, one: int) -> bool:
        if self._config.objective == "reward":
            return self.value(one) == self.value(best)
        return self.is_scored(one) and self.mean_difference(best, one) <= self._config.margin

    def _compared(self, leader: int, other: int, p: float, labels: Sequence[str]) -> str:
        difference, pairs = self.mean_difference(leader, other), self.pairs(leader, other)
        return f"{labels[leader]} and {labels[other]} tie ({difference:+.3g} on {pairs} tasks, p = {p:.2g})"

    def _reason(self, winner: int, leader: int, tied: Sequence[int], labels: Sequence[str]) -> str:
        if len({self.cost(one) for one in tied}) == 1:
            return f"They cost the same, and {labels[winner]} has the greater mean"
        return f"{labels[winner]} is the cheapest of them, at {self.cost(winner):.3g} dollars a rollout"


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan
