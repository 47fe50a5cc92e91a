"""Successive elimination with paired differences. Pure: it knows tasks, rewards and costs, no agent.

After each round a candidate is dropped when it is significantly worse than the one that leads (Maron & Moore 1994,
"Hoeffding races"; Even-Dar, Mannor & Mansour 2006, section 3). Candidates are compared on the same tasks, so what
makes a task hard for all of them does not count as noise (Moore & Lee 1994, blocking). The error is divided over the
comparisons of all rounds (Bonferroni), so looking after every round costs nothing in confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from agentlightning_selection.config import SelectionConfig


class Race:
    """Candidates 0 … ``count`` − 1 over at most ``rounds`` rounds."""

    def __init__(self, count: int, rounds: int, config: SelectionConfig) -> None:
        self.remaining = list(range(count))
        self.spent = 0.0
        """Dollars."""
        self._config = config
        self._rewards: list[dict[str, float]] = [{} for _ in range(count)]
        self._values: list[dict[str, float]] = [{} for _ in range(count)]
        self._least, self._most = math.inf, -math.inf
        self._costs: list[dict[str, float]] = [{} for _ in range(count)]
        tests = 2 if config.objective == "cheapest" else 1
        self._alpha = (1 - config.confidence) / (max(count - 1, 1) * rounds * tests)

    def record(self, candidate: int, task_id: str, reward: float | None, cost: float) -> None:
        """What one rollout was worth, None when it could not be scored, and its dollars."""
        self.spent += cost
        self._costs[candidate][task_id] = cost
        if reward is None:
            return
        weight = self._config.cost_weight if self._config.objective == "reward" else 0.0
        value = reward - weight * cost
        self._rewards[candidate][task_id] = reward
        self._values[candidate][task_id] = value
        self._least, self._most = min(self._least, value), max(self._most, value)

    @property
    def decided(self) -> bool:
        """Whether going on cannot change the winner."""
        if self._config.objective == "cheapest" and len(self.remaining) == 2:
            leader, winner = self._leader(), self._cheapest_good_enough()
            return winner is not None and winner != leader
        return len(self.remaining) < 2

    def winner(self) -> int | None:
        """The best of those left by what is known so far; None when nothing could be scored."""
        scored = [candidate for candidate in self.remaining if self._rewards[candidate]]
        if not scored:
            return None
        if self._config.objective == "reward":
            return self._leader()
        leader = self._leader()
        near = [one for one in scored if self._mean_difference(leader, one) <= self._config.margin]
        return min(near, key=lambda one: (self.cost(one), -self.reward(one)))

    def eliminate(self) -> dict[int, str]:
        """Drops candidates; returns why, by candidate."""
        dropped = {
            one: f"none of its {len(self._costs[one])} rollouts could be scored"
            for one in self.remaining
            if len(self._costs[one]) >= self._config.minimum and not self._rewards[one]
        }
        self._drop(dropped)
        if len(self.remaining) < 2:
            return dropped
        worse = self._worse()
        self._drop(worse)
        expensive = self._more_expensive() if self._config.objective == "cheapest" else {}
        self._drop(expensive)
        return {**dropped, **worse, **expensive}

    def reward(self, candidate: int) -> float:
        """Mean reward over the scored tasks; nan when there are none."""
        return _mean(self._rewards[candidate])

    def cost(self, candidate: int) -> float:
        """Mean dollars per rollout; nan before the first."""
        return _mean(self._costs[candidate])

    def win_rate(self, candidate: int) -> float:
        """How often it does better than another one on the same task, ties counted half; nan without any."""
        others = [other for other in range(len(self._rewards)) if other != candidate]
        differences = np.concatenate([self._differences(candidate, other) for other in others])
        return float((np.sign(differences) / 2 + 0.5).mean()) if len(differences) else math.nan

    def _worse(self) -> dict[int, str]:
        leader = self._leader()
        margin = self._config.margin if self._config.objective == "cheapest" else 0.0
        return {
            one: f"worse than the best by {self._mean_difference(leader, one):.3g} (p = {p:.2g})"
            for one in self.remaining
            if one != leader and (p := self._p(leader, one, margin)) < self._alpha
        }

    def _more_expensive(self) -> dict[int, str]:
        """Those that cost more than one that is good enough. The leader stays, as what the others are measured by."""
        cheapest, leader = self._cheapest_good_enough(), self._leader()
        if cheapest is None:
            return {}
        return {
            one: f"dearer ({self.cost(one):.3g} against {self.cost(cheapest):.3g} dollars) than one that is good enough"
            for one in self.remaining
            if one not in (cheapest, leader) and self.cost(one) > self.cost(cheapest)
        }

    def _cheapest_good_enough(self) -> int | None:
        """The cheapest one surely not worse than any other by more than the margin."""
        good_enough = [one for one in self.remaining if self._good_enough(one)]
        return min(good_enough, key=self.cost, default=None)

    def _good_enough(self, candidate: int) -> bool:
        others = (one for one in self.remaining if one != candidate)
        return all(self._p(candidate, other, -self._config.margin) < self._alpha for other in others)

    def _drop(self, dropped: Mapping[int, str]) -> None:
        self.remaining = [one for one in self.remaining if one not in dropped]

    def _leader(self) -> int:
        return max(self.remaining, key=lambda one: _mean(self._values[one]) if self._values[one] else -math.inf)

    def _differences(self, one: int, other: int) -> np.ndarray:
        """Value of ``one`` minus value of ``other`` on each task (N,) that both were scored on."""
        first, second = self._values[one], self._values[other]
        return np.array([value - second[task] for task, value in first.items() if task in second], np.float64)

    def _mean_difference(self, one: int, other: int) -> float:
        differences = self._differences(one, other)
        return float(differences.mean()) if len(differences) else 0.0

    def _p(self, one: int, other: int, shift: float) -> float:
        differences = self._differences(one, other)
        if len(differences) < self._config.minimum:
            return 1.0
        return p_greater(differences, shift, self._most - self._least)


def p_greater(differences: np.ndarray, shift: float, spread: float) -> float:
    """One-sided p of the mean of paired differences (N,) being greater than ``shift``.

    The paired t-test, with half an observation added to each cell of what a pair can be (both, neither, only the one,
    only the other), which keeps it honest where nearly all pairs are ties (Agresti & Min 2005, "Simple improved
    confidence intervals for comparing matched proportions"); a lone pair differs by ``spread``. Student's t is taken
    to a normal deviate by Wallace (1959), right to about 3 digits.
    """
    count = len(differences) + 2
    mean = float(differences.sum()) / count
    variance = (float((differences**2).sum()) + spread**2) / count - mean**2
    if variance <= 0:
        return 0.0 if mean > shift else 1.0
    freedom = count - 1
    t = (mean - shift) / math.sqrt(variance / freedom)
    normal = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return NormalDist().cdf(-math.copysign(normal, t))


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values) if values else math.nan
