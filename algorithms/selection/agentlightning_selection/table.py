"""What rollouts gave, as a table, and the points of quality against cost in it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agentlightning_selection.contest import Trial
from agentlightning_selection.front import Point
from agentlightning_selection.pricing import route

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Outcomes (N, M), dollars (N, M) and seconds (N, M)."""


class Table:
    """What rollouts gave, task by task: texts (N), outcomes (N, M), dollars (N, M) and seconds (N, M); nan where there
    is nothing."""

    def __init__(self, models: int) -> None:
        self._texts: dict[str, str] = {}
        self._cells: dict[str, np.ndarray] = {}
        self._models = models

    def add(self, place: int, trial: Trial) -> None:
        """What a candidate's rollout of a task gave."""
        cells = self._cells.setdefault(trial.task_id, np.full((3, self._models), math.nan))
        dollars = trial.dollars if trial.failure is None else None
        cells[:, place] = [_or_nan(value) for value in (trial.outcome, dollars, trial.seconds)]
        if trial.text:
            self._texts.setdefault(trial.task_id, trial.text)

    @property
    def ids(self) -> list[str]:
        """Tasks of which anything is known to learn from."""
        return [id for id, cells in self._cells.items() if id in self._texts and np.isfinite(cells[0]).any()]

    def arrays(self) -> tuple[list[str], Arrays]:
        """The texts, and what they gave."""
        ids = self.ids
        cells = np.stack([self._cells[id] for id in ids])
        return [self._texts[id] for id in ids], (cells[:, 0], cells[:, 1], cells[:, 2])


def points_of(
    labels: Sequence[str],
    predicted: tuple[np.ndarray, np.ndarray],
    given: Arrays,
    allowed: list[int],
    swept: Sequence[float],
) -> list[Point]:
    """Each candidate alone, and the router at each of the prices ``swept``, by what it predicted."""
    points = alone(labels, given)
    outcomes, costs = (array[:, allowed] for array in predicted)
    for price in swept:
        chosen = np.array(allowed)[route(outcomes, costs, price)]
        outcome, dollars, seconds = (mean_known(array[np.arange(len(chosen)), chosen]) for array in given)
        points.append(Point("chosen by task", outcome, dollars, seconds, len(chosen), price))
    return points


def alone(labels: Sequence[str], given: Arrays) -> list[Point]:
    points = []
    for place, label in enumerate(labels):
        outcome, dollars, seconds = (mean_known(array[:, place]) for array in given)
        count = int(np.isfinite(given[0][:, place]).sum())
        if count:
            points.append(Point(label, outcome, dollars, seconds, count))
    return points


def mean_known(values: np.ndarray) -> float:
    """The mean of what is known; nan where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
