"""Outcome and dollars of each model on a task, from the training tasks nearest to it. Pure.

The weight of a neighbour is exp(−d² / 2τ), d its distance: on embeddings of length 1 that is a softmax of the cosine
similarity over the temperature τ (Nadaraya 1964; Watson 1964). ``k`` and τ are those with the least squared error of
the predicted outcomes in cross-validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 512
"""Rows whose distances are in memory at once."""


class Neighbours:
    """Training tasks with features (N, D), outcomes (N, M) and dollars (N, M); nan where there is none."""

    def __init__(
        self, features: np.ndarray, outcomes: np.ndarray, costs: np.ndarray, *, count: int, temperature: float
    ) -> None:
        self.features = np.asarray(features, np.float32)
        self.outcomes, self.costs = np.asarray(outcomes, np.float32), np.asarray(costs, np.float32)
        self.count, self.temperature = count, temperature

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted outcomes (B, M) and dollars (B, M) for features (B, D)."""
        outcomes, costs = [], []
        for block in _blocks(features):
            nearest, distances = _nearest(block, self.features, self.count)
            weights = _weights(distances, self.temperature)
            outcomes.append(_weighted(weights, self.outcomes, nearest))
            costs.append(_weighted(weights, self.costs, nearest))
        return np.concatenate(outcomes), np.concatenate(costs)


class Chosen:
    """The number of neighbours and the temperature that cross-validation chose, its mean squared error, and what it
    predicted of each training task without that task: outcomes (N, M), dollars (N, M)."""

    def __init__(self, count: int, temperature: float, error: float, outcomes: np.ndarray, costs: np.ndarray) -> None:
        self.count, self.temperature, self.error = count, temperature, error
        self.outcomes, self.costs = outcomes, costs


def cross_validated(
    features: np.ndarray,
    outcomes: np.ndarray,
    costs: np.ndarray,
    *,
    counts: Sequence[int],
    temperatures: Sequence[float],
    folds: int,
    rng: np.random.Generator,
) -> Chosen:
    """The best of a grid over ``folds`` parts of the training tasks; the smaller number and temperature where several
    are as good."""
    features, outcomes, costs = (np.asarray(array, np.float32) for array in (features, outcomes, costs))
    part = rng.permutation(len(features)) % folds
    grid = [(count, temperature) for count in sorted(set(counts)) for temperature in sorted(set(temperatures))]
    predicted = {pair: np.empty_like(outcomes) for pair in grid}
    expected_costs = {pair: np.empty_like(costs) for pair in grid}
    for fold in range(folds):
        inside, outside = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
        for rows in _blocks(outside):
            nearest, distances = _nearest(features[rows], features[inside], max(counts))
            for count, temperature in grid:
                weights = _weights(distances[:, :count], temperature)
                pair = (count, temperature)
                predicted[pair][rows] = _weighted(weights, outcomes[inside], nearest[:, :count])
                expected_costs[pair][rows] = _weighted(weights, costs[inside], nearest[:, :count])
    errors = {pair: float(np.nanmean((predicted[pair] - outcomes) ** 2)) for pair in grid}
    best = min(grid, key=lambda pair: errors[pair])
    return Chosen(*best, errors[best], predicted[best], expected_costs[best])


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def _nearest(features: np.ndarray, among: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``among`` (B, K), the nearest first, and their squared distances (B, K)."""
    count = min(count, len(among))
    squares = (features**2).sum(1)[:, None] + (among**2).sum(1)[None] - 2 * features @ among.T
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
    distances = np.take_along_axis(squares, nearest, axis=1)
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(nearest, order, axis=1), np.maximum(np.take_along_axis(distances, order, axis=1), 0)


def _weights(distances: np.ndarray, temperature: float) -> np.ndarray:
    """(B, K), the nearest at 1."""
    return np.asarray(np.exp(-(distances - distances[:, :1]) / (2 * temperature)))


def _weighted(weights: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weighted means (B, M) of values (N, M) at rows (B, K). What is nan is left out; where all of them are, the mean
    over all tasks."""
    taken = values[rows]
    known = np.isfinite(taken)
    mass = np.einsum("bk,bkm->bm", weights, known.astype(np.float32))
    total = np.einsum("bk,bkm->bm", weights, np.where(known, taken, 0).astype(np.float32))
    everywhere = np.nanmean(values, axis=0)
    means = np.divide(total, mass, out=np.broadcast_to(everywhere, total.shape).copy(), where=mass > 0)
    return np.asarray(means)
