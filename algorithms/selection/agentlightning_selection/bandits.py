"""One candidate for each task, by what those before have given. Pure: it knows rewards, no agent and no task.

With a discount γ < 1 all that was counted is multiplied by γ at each update, so that what is learned follows traffic
that changes, with a memory of about 1 / (1 − γ) decisions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np

from agentlightning_selection.config import ThompsonConfig, TrafficConfig, UCBConfig
from agentlightning_selection.paired import p_greater_apart


class Bandit(ABC):
    """Arms 0 … ``arms`` − 1. ``counts`` (A,) and the sums of rewards (A,) and their squares (A,) are discounted."""

    def __init__(self, arms: int, config: TrafficConfig) -> None:
        self.counts = np.zeros(arms)
        self._sums, self._squares = np.zeros(arms), np.zeros(arms)
        self._discount = config.discount

    @property
    def means(self) -> np.ndarray:
        """Mean reward of each arm (A,); nan before the first."""
        unknown = np.full(len(self.counts), math.nan)
        return np.asarray(np.divide(self._sums, self.counts, out=unknown, where=self.counts > 0))

    def update(self, arm: int, reward: float) -> None:
        """What a decision gave."""
        for counted in (self.counts, self._sums, self._squares):
            counted *= self._discount
        self.counts[arm] += 1
        self._sums[arm] += reward
        self._squares[arm] += reward**2

    @abstractmethod
    def choose(self, allowed: Collection[int], pending: np.ndarray, rng: np.random.Generator) -> int:
        """The arm of the next task. ``pending`` (A,) counts decisions whose rewards are not known yet."""

    def p_better(self, one: int, other: int) -> float:
        """One-sided p of one arm's mean being greater than another's, by what is counted."""
        pair = [one, other]
        means, counts = self.means[pair], self.counts[pair]
        variances = np.maximum(self._squares[pair] / np.maximum(counts, 1e-9) - means**2, 0.0)
        if min(counts) < 2:
            return 1.0
        variances = variances * counts / (counts - 1) + 1e-12
        return p_greater_apart(tuple(means), tuple(variances), tuple(counts))


class Thompson(Bandit):
    """Thompson sampling: draws each arm's mean from its posterior, and takes the arm whose draw is greatest.

    ``beta``: Beta(1 + S, 1 + N − S) for rewards from 0 to 1 with sum S over N (Agrawal & Goyal 2012, "Analysis of
    Thompson sampling for the multi-armed bandit problem"). ``gaussian``: Normal(S / (N + 1), σ² / (N + 1)) (Agrawal &
    Goyal 2013, "Further optimal regret bounds", algorithm 2, around the mean of all rewards, with their variance for
    σ², 1 before the third). Discounted: Raj & Kalyani 2017, "Taming non-stationary bandits".
    """

    def __init__(self, arms: int, config: ThompsonConfig) -> None:
        super().__init__(arms, config)
        self._is_beta = config.posterior == "beta"

    def update(self, arm: int, reward: float) -> None:
        if self._is_beta and not 0 <= reward <= 1:
            raise ValueError(f"a reward of {reward:.4g} is not from 0 to 1: choose the posterior gaussian")
        super().update(arm, reward)

    def choose(self, allowed: Collection[int], pending: np.ndarray, rng: np.random.Generator) -> int:
        draws = self._beta(rng) if self._is_beta else self._gaussian(rng)
        return max(allowed, key=lambda arm: draws[arm])

    def _beta(self, rng: np.random.Generator) -> np.ndarray:
        return rng.beta(1 + self._sums, 1 + np.maximum(self.counts - self._sums, 0.0))

    def _gaussian(self, rng: np.random.Generator) -> np.ndarray:
        total = self.counts.sum()
        center = self._sums.sum() / total if total > 0 else 0.0
        variance = self._squares.sum() / total - center**2 if total > 2 else 1.0
        mean = (self._sums + center) / (self.counts + 1)
        return rng.normal(mean, np.sqrt(max(variance, 1e-12) / (self.counts + 1)))


class UCB(Bandit):
    """The upper confidence bound: the arm with the greatest mean + 2 B √(ξ ln n / N), after each was taken once.

    Discounted UCB (Garivier & Moulines 2011, "On upper-confidence bound policies for switching bandit problems",
    section 3): N and n are discounted counts of the arm and of all. With γ = 1, ξ = ½ and B = 1 it adds √(2 ln n / N):
    UCB1 (Auer, Cesa-Bianchi & Fischer 2002). A decision whose reward is not known yet counts in N and n.
    """

    def __init__(self, arms: int, config: UCBConfig) -> None:
        super().__init__(arms, config)
        self._exploration, self._range = config.exploration, config.reward_range

    def choose(self, allowed: Collection[int], pending: np.ndarray, rng: np.random.Generator) -> int:
        counts = self.counts + pending
        return max(allowed, key=lambda arm: (self._bound(arm, counts), -arm))

    def _bound(self, arm: int, counts: np.ndarray) -> float:
        """Infinite for an arm that was never taken; one that only waits for its first reward has no mean yet."""
        if counts[arm] <= 0:
            return math.inf
        mean = self._sums[arm] / self.counts[arm] if self.counts[arm] > 0 else 0.0
        total = max(float(counts.sum()), 1.0)
        return float(mean + 2 * self._range * math.sqrt(self._exploration * math.log(total) / counts[arm]))
