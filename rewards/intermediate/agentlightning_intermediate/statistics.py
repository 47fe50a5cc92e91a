"""Does a signal go with success? The same tasks compared with themselves, and corrected for how many signals were
looked at. Pure functions.

N rollouts belong to groups of one task each; of K signals ``present`` (N, K) says which occurred in which rollout. The
effect of a signal in a group is the mean outcome of the rollouts with it less that of those without: a hard task, in
which everything goes wrong and nobody succeeds, has no part in it. Groups in which all have it, or none, say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERMUTATIONS = 10_000
CHUNK = 2_000_000
"""How many numbers are drawn at once."""


def contrasts(present: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The weights (N, K) with which outcomes (N,) add up to the effect of each signal, its mean over the groups (N,)
    that say something; 0 throughout where none does."""
    weights = np.zeros(present.shape, np.float64)
    for group in np.unique(groups):
        member = groups == group
        inside = present[member]
        having = inside.sum(axis=0)
        lacking = len(inside) - having
        informs = (having > 0) & (lacking > 0)
        with_it, without_it = 1.0 / np.maximum(having, 1), 1.0 / np.maximum(lacking, 1)
        weights[member] = np.where(inside, with_it, -without_it) * informs
    count = np.array([len(informative(present[:, signal], groups)) for signal in range(present.shape[1])])
    scaled: np.ndarray = weights / np.maximum(count, 1)
    return scaled


def informative(present: np.ndarray, groups: np.ndarray) -> list[int]:
    """The groups in which some rollouts have a signal (N,) and others have not."""
    return [int(group) for group in np.unique(groups) if len(set(present[groups == group].tolist())) == 2]


def differences(present: np.ndarray, outcomes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The effect of one signal (N,) in each group that says something (G,)."""
    found = []
    for group in informative(present, groups):
        member = groups == group
        found.append(outcomes[member & present].mean() - outcomes[member & ~present].mean())
    return np.array(found, np.float64)


def permutation_p(weights: np.ndarray, outcomes: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Two-sided p (K,) of effects with these `contrasts` (N, K), where outcomes are as good as exchanged within each
    group: `PERMUTATIONS` draws of a seed, the observed one counted among them, so p is never 0 (Good 2005, Permutation,
    Parametric and Bootstrap Tests of Hypotheses, section 3.6)."""
    order = np.argsort(groups, kind="stable")
    weights, outcomes, groups = weights[order], outcomes[order], np.unique(groups[order], return_inverse=True)[1]
    least = np.abs(outcomes @ weights) * (1 - 1e-9)
    rng = np.random.default_rng(seed)
    extreme = np.zeros(weights.shape[1], np.int64)
    size = max(1, CHUNK // max(1, len(outcomes)))
    for start in range(0, PERMUTATIONS, size):
        draws = rng.random((min(size, PERMUTATIONS - start), len(outcomes)))
        shuffled = outcomes[np.argsort(groups + draws, axis=1)]
        extreme += (np.abs(shuffled @ weights) >= least).sum(axis=0)
    p: np.ndarray = (extreme + 1) / (PERMUTATIONS + 1)
    return p


def holm(p: Sequence[float]) -> list[float]:
    """The p-values of several tests, so corrected that those below α are together wrong with a probability of at most α
    (Holm 1979)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    corrected, highest = [1.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    return corrected
