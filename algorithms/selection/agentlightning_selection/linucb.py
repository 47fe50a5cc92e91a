"""LinUCB with disjoint linear models. Pure.

Li, Chu, Langford & Schapire 2010, "A contextual-bandit approach to personalized news article recommendation",
algorithm 1: for features x, the arm a with the greatest θ_aᵀx + α √(xᵀ A_a⁻¹ x), where A_a = λI + Σ x xᵀ and
θ_a = A_a⁻¹ Σ r x over what the arm was taken for; λ = 1 in the paper. A⁻¹ is kept up to date by Sherman & Morrison
(1950).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np


class LinUCB:
    """Arms 0 … ``arms`` − 1 over features (D,). ``inverses`` (A, D, D) are A⁻¹, ``sums`` (A, D) Σ r x."""

    def __init__(self, arms: int, dimensions: int, *, alpha: float, regularisation: float) -> None:
        self.alpha = alpha
        self.inverses = np.tile(np.eye(dimensions) / regularisation, (arms, 1, 1))
        self.sums = np.zeros((arms, dimensions))

    def expected(self, features: np.ndarray) -> np.ndarray:
        """θᵀx of each arm (A,)."""
        return np.asarray(np.einsum("ade,d,ae->a", self.inverses, features, self.sums, optimize=True))

    def bounds(self, features: np.ndarray) -> np.ndarray:
        """The upper confidence bound of each arm (A,)."""
        widths = np.einsum("ade,d,e->a", self.inverses, features, features, optimize=True)
        return np.asarray(self.expected(features) + self.alpha * np.sqrt(np.maximum(widths, 0.0)))

    def choose(self, features: np.ndarray, allowed: Collection[int], penalty: np.ndarray) -> int:
        """The arm with the greatest bound less its ``penalty`` (A,), what it costs in units of reward."""
        bounds = self.bounds(features) - penalty
        return max(allowed, key=lambda arm: bounds[arm])

    def update(self, arm: int, features: np.ndarray, reward: float) -> None:
        """What a decision gave."""
        inverse = self.inverses[arm]
        direction = inverse @ features
        inverse -= np.outer(direction, direction) / (1 + features @ direction)
        self.sums[arm] += reward * features
