"""Tests of whether one mean is greater than another, without a table of Student's t."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np


def p_greater(differences: np.ndarray, shift: float, spread: float) -> float:
    """One-sided p of the mean of paired differences (N,) being greater than ``shift``.

    The paired t-test, with half an observation added to each cell of what a pair can be (both, neither, only the one,
    only the other), which keeps it honest where nearly all pairs are ties (Agresti & Min 2005, "Simple improved
    confidence intervals for comparing matched proportions"); a lone pair differs by ``spread``.
    """
    count = len(differences) + 2
    mean = float(differences.sum()) / count
    variance = (float((differences**2).sum()) + spread**2) / count - mean**2
    if variance <= 0:
        return 0.0 if mean > shift else 1.0
    return _tail((mean - shift) / math.sqrt(variance / (count - 1)), count - 1)


def p_greater_apart(means: tuple[float, float], variances: tuple[float, float], counts: tuple[float, float]) -> float:
    """One-sided p of the first mean being greater, of samples that are not paired (Welch 1947). ``counts`` may be
    discounted ones; 1 where one of them is below 2."""
    if min(counts) < 2:
        return 1.0
    parts = [variance / count for variance, count in zip(variances, counts, strict=True)]
    if sum(parts) <= 0:
        return 0.0 if means[0] > means[1] else 1.0
    freedom = sum(parts) ** 2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return _tail((means[0] - means[1]) / math.sqrt(sum(parts)), freedom)


def _tail(t: float, freedom: float) -> float:
    """Above t, taken to a normal deviate by Wallace (1959), right to about 3 digits."""
    normal = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return NormalDist().cdf(-math.copysign(normal, t))
