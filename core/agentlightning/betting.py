"""Whether a mean is above a bound, tested as often as one looks: by betting. Pure functions.

Whoever bets a share λ of their money on each of the differences d₁, d₂ … being above m has, after n of them,
∏ (1 + λ (dᵢ - m)). Where the mean of each, given those before, is at most m, that money is on average no more than the
1 that it began with, however long one bets: an e-value, which by Ville's inequality ever reaches 1 / α with probability
α at most. Differences in [-1, 1] keep it from going below zero for λ up to 1 / (1 + m). Which λ wins most is not known,
so the money is spread over many (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting",
JRSS-B 86, 2024, sections 4 and 5). As none depends on what came before, the same differences give the same e-value in
whichever order they come.

Two groups to which chance sends what comes, one by one, are compared by the differences between them (after Shekhar &
Ramdas, "Nonparametric two-sample testing by betting", IEEE Trans. Inf. Theory 70, 2024): `block_differences`.
"""

from __future__ import annotations

import numpy as np

BETS = 0.98 * 2.0 ** -np.arange(0, 8, 0.5)
"""The shares that are bet, as parts of the largest that is allowed: (16,)."""


def log_e_values(differences: np.ndarray, above: float = 0.0) -> np.ndarray:
    """The logarithm of the e-value after each of ``differences`` (…, N) in [-1, 1], against a mean of at most
    ``above``.

    Raises `ValueError` where one is outside of that, or is no number.
    """
    differences = np.asarray(differences, np.float64)
    if not bool(np.all(np.abs(differences) <= 1)):
        raise ValueError("differences are in [-1, 1]: divide them by the width of what the values may be")
    total = np.full(differences.shape, -np.inf)
    for share in BETS / (1 + above):
        total = np.logaddexp(total, np.cumsum(np.log1p(share * (differences - above)), axis=-1))
    return np.asarray(total - np.log(len(BETS)))


def p_value(differences: np.ndarray, above: float = 0.0) -> float:
    """Bounds the probability of such evidence at any look, where the mean of ``differences`` (N,) is at most
    ``above``: the inverse of the largest e-value so far, 1 where there is none."""
    if not np.size(differences):
        return 1.0
    return float(np.exp(-max(0.0, log_e_values(differences, above).max())))


def block_differences(in_first: np.ndarray, values: np.ndarray) -> np.ndarray:
    """What a first group had more than a second, block by block, (B,): ``in_first`` (N,) says of each of ``values``
    (N,), in the order in which they came, whether it is of the first.

    A block ends as soon as it holds some of both; its difference is that of their means. As which group something comes
    to has been drawn before its value was known, each difference is 0 on average where the groups are alike.
    """
    sums, counts = [0.0, 0.0], [0, 0]
    differences: list[float] = []
    for group, value in zip(np.asarray(in_first, bool).tolist(), np.asarray(values, np.float64).tolist(), strict=True):
        sums[group] += value
        counts[group] += 1
        if all(counts):
            differences.append(sums[1] / counts[1] - sums[0] / counts[0])
            sums, counts = [0.0, 0.0], [0, 0]
    return np.array(differences, np.float64)
