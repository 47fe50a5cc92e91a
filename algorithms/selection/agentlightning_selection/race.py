"""Successive elimination with paired differences. Pure: it knows tasks, rewards and costs, no agent.

After each round a candidate is dropped when it is significantly worse than the one that leads (Maron & Moore 1994,
"Hoeffding races"; Even-Dar, Mannor & Mansour 2006, section 3). Candidates are compared on the same tasks, so what
makes a task hard for all of them does not count as noise (Moore & Lee 1994, blocking). The error is divided over the
comparisons of all rounds (Bonferroni), so looking after every round costs nothing in confidence.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentlightning_selection.config import RacingConfig
from agentlightning_selection.results import Results


class Race(Results):
    """Candidates 0 … ``count`` − 1 over at most ``rounds`` rounds."""

    def __init__(self, count: int, rounds: int, config: RacingConfig) -> None:
        super().__init__(count, config)
        self.remaining = list(range(count))
        self._minimum, self._objective = config.minimum, config.objective
        self._margin = config.margin if config.objective != "reward" else 0.0
        tests = 1 if config.objective == "reward" else 2
        self._alpha = (1 - config.confidence) / (max(count - 1, 1) * rounds * tests)

    @property
    def decided(self) -> bool:
        """Whether going on cannot change the winner."""
        if self._objective != "reward" and len(self.remaining) == 2:
            leader, winner = self.leader(self.remaining), self._least_of_the_good_enough()
            return winner is not None and winner != leader
        return len(self.remaining) < 2

    def eliminate(self) -> dict[int, str]:
        """Drops candidates; returns why, by candidate."""
        dropped = {
            one: f"none of its {self.runs(one)} rollouts could be scored"
            for one in self.remaining
            if self.runs(one) >= self._minimum and not self.is_scored(one)
        }
        self.drop(dropped)
        if len(self.remaining) < 2:
            return dropped
        worse = self._worse()
        self.drop(worse)
        dearer = self._dearer() if self._objective != "reward" else {}
        self.drop(dearer)
        return {**dropped, **worse, **dearer}

    def drop(self, dropped: Mapping[int, str]) -> None:
        """Takes candidates out of the race."""
        self.remaining = [one for one in self.remaining if one not in dropped]

    def _worse(self) -> dict[int, str]:
        leader = self.leader(self.remaining)
        return {
            one: f"worse than the best by {self.mean_difference(leader, one):.3g} (p = {p:.2g})"
            for one in self.remaining
            if one != leader and (p := self._p_in_time(leader, one, self._margin)) < self._alpha
        }

    def _dearer(self) -> dict[int, str]:
        """Those that cost more, or take longer, than one that is good enough. The leader stays, as what the others are
        measured by."""
        least, leader = self._least_of_the_good_enough(), self.leader(self.remaining)
        if least is None:
            return {}
        word, unit = ("slower", "seconds") if self._objective == "fastest" else ("dearer", "dollars")
        of_least = f"{self.expense(least):.3g} {unit}"
        return {
            one: f"{word} ({self.expense(one):.3g} against {of_least}) than one that is good enough"
            for one in self.remaining
            if one not in (least, leader) and self.expense(one) > self.expense(least)
        }

    def _least_of_the_good_enough(self) -> int | None:
        """Of those that are surely not worse than any other by more than the margin, the cheapest or fastest."""
        good_enough = [one for one in self.remaining if self._is_good_enough(one)]
        return min(good_enough, key=self.expense, default=None)

    def _is_good_enough(self, candidate: int) -> bool:
        others = (one for one in self.remaining if one != candidate)
        return all(self._p_in_time(candidate, other, -self._margin) < self._alpha for other in others)

    def _p_in_time(self, one: int, other: int, shift: float) -> float:
        return self.p(one, other, shift) if self.pairs(one, other) >= self._minimum else 1.0
