"""Comparisons → scores. Pure functions.

N candidates; ``wins[i, j]`` (N, N) says how often i was better than j, a tie half a time for each, so that
``wins + wins.T`` says how often they were compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PRIOR = 0.5
"""Each candidate has won and lost so often against one of strength 1: strengths stay finite, and candidates that were
compared with different others are on one scale."""
ITERATIONS = 10_000
TOLERANCE = 1e-10
DIGITS = 6
"""Strengths that differ less are a tie."""


def ranking_wins(places: Sequence[int]) -> np.ndarray:
    """The comparisons (N, N) that a ranking implies: ``places`` (N,), the lower the better, equal where they tie."""
    place = np.asarray(places)
    won: np.ndarray = (place[:, None] < place[None, :]) + 0.5 * (place[:, None] == place[None, :])
    np.fill_diagonal(won, 0.0)
    return won


def log_strengths(wins: np.ndarray) -> np.ndarray:
    """The log-strengths (N,) of the Bradley–Terry model, in which i beats j with the probability θᵢ / (θᵢ + θⱼ): by
    minorisation and maximisation (Hunter 2004, MM Algorithms for Generalized Bradley–Terry Models, section 2), with
    `PRIOR`. Rounded, so that equal ones are equal."""
    met = wins + wins.T
    won = wins.sum(axis=1) + PRIOR
    strength = np.ones(len(wins))
    for _ in range(ITERATIONS):
        expected = (met / (strength[:, None] + strength[None, :])).sum(axis=1) + 2 * PRIOR / (strength + 1.0)
        updated = won / expected
        change = np.abs(np.log(updated / strength)).max(initial=0.0)
        strength = updated
        if change < TOLERANCE:
            break
    rounded: np.ndarray = np.round(np.log(strength), DIGITS) + 0.0
    return rounded


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) scaled to [0, 1], 1 for the largest; equal values share the mean of their ranks. One alone is ½."""
    if len(values) < 2:
        return np.full(len(values), 0.5)
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1) - 1
    ranks: np.ndarray = (below + 0.5 * equal) / (len(values) - 1)
    return ranks


def expected_wins(log_strength: np.ndarray) -> np.ndarray:
    """With which probability (N,) each beats one of the others, drawn at random. One alone is ½."""
    if len(log_strength) < 2:
        return np.full(len(log_strength), 0.5)
    beats = 1.0 / (1.0 + np.exp(log_strength[None, :] - log_strength[:, None]))
    expected: np.ndarray = (beats.sum(axis=1) - 0.5) / (len(log_strength) - 1)
    return expected


def win_rates(wins: np.ndarray) -> np.ndarray:
    """The share of its comparisons that each has won (N,); NaN for one that was compared with none."""
    met = (wins + wins.T).sum(axis=1)
    rates: np.ndarray = np.where(met > 0, wins.sum(axis=1) / np.maximum(met, 1e-300), np.nan)
    return rates


def pairs(count: int, opponents: int, order: Sequence[int]) -> list[tuple[int, int]]:
    """Which of ``count`` candidates are compared: all with all where that is no more than ``opponents`` each, else each
    with so many (or one fewer, where count and opponents are odd), its neighbours on a ring that ``order`` (a
    permutation) lays."""
    if count - 1 <= opponents:
        return [(one, other) for one in range(count) for other in range(one + 1, count)]
    found = [
        (order[place], order[(place + distance) % count])
        for distance in range(1, opponents // 2 + 1)
        for place in range(count)
    ]
    if opponents % 2 and count % 2 == 0:
        found += [(order[place], order[place + count // 2]) for place in range(count // 2)]
    return found


def parts(count: int, at_once: int, order: Sequence[int]) -> list[list[int]]:
    """The candidates in groups of at most ``at_once``, in the given order; where that takes several, each group has
    half of the next in it, around a ring, so that all are compared through others."""
    if count <= at_once:
        return [list(order)]
    step = max(1, at_once // 2)
    return [[order[(start + offset) % count] for offset in range(at_once)] for start in range(0, count, step)]
