"""The demonstrations that a run has found, and which of them are worth showing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from agentlightning.records import Rollout
from agentlightning_prompt.demonstrations import Demonstration, Messages

Shown = Mapping[str, tuple[Demonstration, ...]]
"""Demonstrations by role: what one candidate shows, in their order."""


class Pool:
    """Demonstrations by role, ranked.

    Good are those by hand, and those of rollouts with an outcome of at least ``threshold``; without one, those above
    the mean of all rollouts that were seen. A conversation whose own steps got rewards must not be below the mean of
    its role's; where its steps are as good as any, above that mean, it is good whatever became of its rollout.
    """

    def __init__(self, roles: Sequence[str], *, threshold: float | None) -> None:
        self.outcomes: list[float] = []
        """Those of all rollouts that were seen."""
        self.threshold = threshold
        self._found: dict[str, dict[str, Demonstration]] = {role: {} for role in roles}

    def saw(self, rollouts: Iterable[Rollout]) -> None:
        """Counts what rollouts were worth."""
        self.outcomes += [one.outcome for one in rollouts if one.is_scorable and one.outcome is not None]

    def add(self, demonstrations: Iterable[Demonstration]) -> None:
        """Takes those that say something new; of two that say the same, that of the better rollout."""
        for one in demonstrations:
            known = self._found[one.role].get(one.identity)
            if known is None or _worth(one) > _worth(known):
                self._found[one.role][one.identity] = one

    @property
    def best_outcome(self) -> float | None:
        return max(self.outcomes, default=None)

    def good(self, role: str) -> list[Demonstration]:
        """The good ones, the best first; of equal ones the shortest."""
        return self._ranked(role, self._is_good)

    def promising(self, role: str) -> list[Demonstration]:
        """The good ones; where there are none, those of rollouts above the mean."""
        return self.good(role) or self._ranked(role, self._is_above_mean)

    def is_full(self, size: int) -> bool:
        """Whether every role has good ones of so many tasks, each as good as the best that was seen."""
        least = self.threshold if self.threshold is not None else self.best_outcome
        return all(
            len(distinct_tasks([one for one in self.good(role) if self._is_as_good_as_any(one, least)])) >= size
            for role in self._found
        )

    def _ranked(self, role: str, chosen: Callable[[Demonstration, float | None], bool]) -> list[Demonstration]:
        means = self._mean_step_reward(role)
        found = [one for one in self._found[role].values() if chosen(one, means)]
        return sorted(found, key=_rank)

    def _is_good(self, one: Demonstration, mean_steps: float | None) -> bool:
        if one.is_by_hand:
            return True
        steps = one.step_reward
        if steps is not None and mean_steps is not None:
            if steps < mean_steps:
                return False
            if self._has_best_steps(one):
                return True
        if self.threshold is not None:
            return one.outcome is not None and one.outcome >= self.threshold
        return self._is_above_mean(one, mean_steps)

    def _is_above_mean(self, one: Demonstration, mean_steps: float | None) -> bool:
        if one.outcome is None or not self.outcomes:
            return False
        if min(self.outcomes) == max(self.outcomes):
            return one.outcome > 0
        return one.outcome > math.fsum(self.outcomes) / len(self.outcomes)

    def _step_rewards(self, role: str) -> list[float]:
        return [one.step_reward for one in self._found[role].values() if one.step_reward is not None]

    def _has_best_steps(self, one: Demonstration) -> bool:
        found = self._step_rewards(one.role)
        return one.step_reward is not None and one.step_reward == max(found) > math.fsum(found) / len(found)

    def _is_as_good_as_any(self, one: Demonstration, least: float | None) -> bool:
        if one.is_by_hand or least is None or self._has_best_steps(one):
            return True
        return one.outcome is not None and one.outcome >= least

    def _mean_step_reward(self, role: str) -> float | None:
        found = self._step_rewards(role)
        return math.fsum(found) / len(found) if found else None


def distinct_tasks(demonstrations: Sequence[Demonstration]) -> list[Demonstration]:
    """The first of each task, and all by hand, in their order."""
    found: dict[str, Demonstration] = {}
    for place, one in enumerate(demonstrations):
        found.setdefault(f"{place}" if one.is_by_hand else f"task {one.task_id}", one)
    return list(found.values())


def draw(
    pool: Sequence[Demonstration], count: int, rng: np.random.Generator, *, max_characters: int
) -> tuple[Demonstration, ...]:
    """``count`` of a pool in a random order, fewer where they are too long together or of too few tasks.

    The first is drawn; each that follows is the one, of a random half of the rest, whose question has the fewest words
    in common with those before.
    """
    left = distinct_tasks(pool)
    chosen: list[Demonstration] = []
    space = max_characters
    while left and len(chosen) < count:
        left = [one for one in left if one.characters <= space]
        if not left:
            break
        sampled = [left[int(place)] for place in sorted(rng.permutation(len(left))[: math.ceil(len(left) / 2)])]
        best = min(sampled, key=lambda one: _likeness(one, chosen)) if chosen else left[int(rng.integers(len(left)))]
        chosen.append(best)
        left.remove(best)
        space -= best.characters
    return tuple(chosen[int(place)] for place in rng.permutation(len(chosen)))


def messages_of(shown: Shown) -> dict[str, list[Messages]]:
    return {role: [one.messages for one in several] for role, several in shown.items()}


def _likeness(one: Demonstration, others: Sequence[Demonstration]) -> float:
    """The greatest share of words in common with one of the others (Jaccard index), 0 to 1."""
    return max(len(one.words & other.words) / max(len(one.words | other.words), 1) for other in others)


def _rank(one: Demonstration) -> tuple[float, float, int, str, str]:
    outcome, steps = _worth(one)
    return -outcome, -steps, one.characters, one.task_id, one.identity


def _worth(one: Demonstration) -> tuple[float, float]:
    outcome = math.inf if one.is_by_hand else -math.inf if one.outcome is None else one.outcome
    return outcome, 0.0 if one.step_reward is None else one.step_reward
