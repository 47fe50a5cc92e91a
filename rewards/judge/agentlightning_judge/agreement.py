"""How well a judge agrees with labels. Pure functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr

from agentlightning.records import Record

BOOTSTRAPS = 2000
BOOTSTRAPS_OF_ALL = 300
"""Over all rollouts everything is computed anew for each."""


class Judged(Record, kw_only=True):
    """A rollout that has both: the judge's score and a label, the higher the better. ``alone``: it was scored by
    itself, so that its score can be compared with that of any other."""

    group: str
    task: str
    score: float
    label: float
    alone: bool = False


class Estimate(Record, kw_only=True):
    """A number, and the ends of its 95 % bootstrap interval; None where nothing, or no interval, follows."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Agreement(Record, kw_only=True):
    """``units``: groups that say something, or tasks. ``pairs``: those of rollouts with different labels; ``accuracy``
    is the share of them that the judge puts in the labels' order, a tie of the judge counting half."""

    units: int
    rollouts: int
    pairs: int
    accuracy: Estimate
    spearman: Estimate
    kendall: Estimate


def within_groups(judged: Iterable[Judged]) -> Agreement | None:
    """Agreement among rollouts of one group: correlations are means over the groups in which score and label both vary,
    intervals are of groups drawn with replacement. None where no group has different labels."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.group, []).append(one)
    members = [group for group in groups.values() if len({one.label for one in group}) > 1]
    if not members:
        return None
    counted = np.array([_concordance(group) for group in members])
    drawn = np.random.default_rng(0).integers(0, len(members), (BOOTSTRAPS, len(members)))
    right, pairs = counted[:, 0], counted[:, 1]
    return Agreement(
        units=len(members),
        rollouts=sum(map(len, members)),
        pairs=int(pairs.sum()),
        accuracy=_estimate(right.sum() / pairs.sum(), right[drawn].sum(axis=1) / pairs[drawn].sum(axis=1), members),
        spearman=_mean([_correlation(_spearman, group) for group in members], drawn),
        kendall=_mean([_correlation(_kendall, group) for group in members], drawn),
    )


def over_all(judged: Iterable[Judged]) -> Agreement | None:
    """Agreement among all rollouts that were scored alone; intervals are of tasks drawn with replacement. None where
    their labels are all the same."""
    members = [one for one in judged if one.alone]
    if len({one.label for one in members}) < 2:
        return None
    by_task: dict[str, list[Judged]] = {}
    for one in members:
        by_task.setdefault(one.task, []).append(one)
    tasks = list(by_task.values())
    rng = np.random.default_rng(0)
    samples = [
        [one for place in rng.integers(0, len(tasks), len(tasks)) for one in tasks[place]]
        for _ in range(BOOTSTRAPS_OF_ALL if len(tasks) > 1 else 0)
    ]

    def estimate(of: Callable[[Sequence[Judged]], float]) -> Estimate:
        return _estimate(of(members), np.array([of(sample) for sample in samples]), tasks)

    return Agreement(
        units=len(tasks),
        rollouts=len(members),
        pairs=int(_concordance(members)[1]),
        accuracy=estimate(_accuracy),
        spearman=estimate(lambda sample: _correlation(_spearman, sample)),
        kendall=estimate(lambda sample: _correlation(_kendall, sample)),
    )


def _accuracy(members: Sequence[Judged]) -> float:
    right, pairs = _concordance(members)
    return right / pairs if pairs else math.nan


def _concordance(members: Sequence[Judged]) -> tuple[float, float]:
    """How many pairs with different labels the score puts in their order, ties half, and how many there are: each label
    counted against those below it, so that thousands of rollouts take no table of all pairs."""
    scores = np.array([one.score for one in members])
    labels = np.array([one.label for one in members])
    right = pairs = 0.0
    for label in np.unique(labels)[1:]:
        above, below = scores[labels == label], np.sort(scores[labels < label])
        less = np.searchsorted(below, above, side="left")
        equal = np.searchsorted(below, above, side="right") - less
        right += float((less + 0.5 * equal).sum())
        pairs += float(len(above) * len(below))
    return right, pairs


def _spearman(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(spearmanr(scores, labels).statistic)


def _kendall(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(kendalltau(scores, labels).statistic)


def _correlation(of: Callable[[np.ndarray, np.ndarray], float], members: Sequence[Judged]) -> float:
    """NaN where score or label does not vary."""
    scores = np.array([one.score for one in members])
    labels = np.array([one.label for one in members])
    if np.ptp(scores) == 0 or np.ptp(labels) == 0:
        return math.nan
    return of(scores, labels)


def _mean(values: Sequence[float], drawn: np.ndarray) -> Estimate:
    known = np.array(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of none is NaN
        return _estimate(float(np.nanmean(known)), np.nanmean(known[drawn], axis=1), known[~np.isnan(known)])


def _estimate(value: float, bootstrapped: np.ndarray, units: Sequence[object] | np.ndarray) -> Estimate:
    if math.isnan(value):
        return Estimate()
    known = bootstrapped[~np.isnan(bootstrapped)]
    if len(units) < 2 or not len(known):
        return Estimate(value=value)
    low, high = np.percentile(known, (2.5, 97.5))
    return Estimate(value=float(value), low=float(low), high=float(high))
