"""How well a judge agrees with labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from agentlightning_judge.agreement import Judged, over_all, within_groups


def group(name: str, scores: list[float], labels: list[float], *, alone: bool = False) -> list[Judged]:
    return [
        Judged(group=name, task=name, score=score, label=label, alone=alone)
        for score, label in zip(scores, labels, strict=True)
    ]


def random_groups(count: int, noise: float, *, size: int = 6, alone: bool = False) -> list[Judged]:
    rng = np.random.default_rng(0)
    found: list[Judged] = []
    for number in range(count):
        labels = rng.integers(0, 4, size).astype(float)
        scores = np.round(labels + noise * rng.standard_normal(size), 1)
        found += group(str(number), scores.tolist(), labels.tolist(), alone=alone)
    return found


def test_a_judge_that_is_right_agrees_wholly_and_one_that_is_wrong_not_at_all() -> None:
    for sign in (1.0, -1.0):
        found = within_groups(group("a", [sign, sign * 2, sign * 3], [0, 1, 2]) + group("b", [0, sign], [0, 1]))
        assert found is not None
        assert (found.units, found.rollouts, found.pairs) == (2, 5, 4)
        assert found.accuracy.value == (sign + 1) / 2
        assert found.spearman.value == pytest.approx(sign)
        assert found.kendall.value == pytest.approx(sign)


def test_a_tie_of_the_judge_counts_half_and_one_of_the_labels_not() -> None:
    found = within_groups(group("a", [0.5, 0.5, 1.0], [0, 1, 1]))
    assert found is not None
    assert (found.pairs, found.accuracy.value) == (2, 0.75)


def test_groups_are_not_compared_with_each_other() -> None:
    """In each the judge is right, over both it is not."""
    found = within_groups(group("a", [0.0, 0.1], [8, 9]) + group("b", [0.9, 1.0], [0, 1]))
    assert found is not None
    assert found.accuracy.value == 1.0


def test_pairs_and_correlations_are_those_of_a_count_by_hand_and_of_scipy() -> None:
    judged = random_groups(1, 1.0, size=40, alone=True)
    scores, labels = np.array([one.score for one in judged]), np.array([one.label for one in judged])
    pairs = [(i, j) for i, j in itertools.combinations(range(40), 2) if labels[i] != labels[j]]
    right = [0.5 + 0.5 * np.sign((scores[i] - scores[j]) * (labels[i] - labels[j])) for i, j in pairs]
    for found in (within_groups(judged), over_all(judged)):
        assert found is not None
        assert (found.pairs, found.accuracy.value) == (len(pairs), pytest.approx(np.mean(right)))
        assert found.spearman.value == pytest.approx(spearmanr(scores, labels).statistic)
        assert found.kendall.value == pytest.approx(kendalltau(scores, labels).statistic)


@pytest.mark.parametrize(("alone", "counts"), [(False, (20, 320)), (True, (10, 90))])
def test_the_interval_holds_the_value_and_is_narrower_for_more_groups(alone: bool, counts: tuple[int, int]) -> None:
    widths = []
    for count in counts:
        judged = random_groups(count, 1.5, alone=alone)
        found = over_all(judged) if alone else within_groups(judged)
        assert found is not None
        for estimate in (found.accuracy, found.spearman, found.kendall):
            assert estimate.low is not None
            assert estimate.low < estimate.value < estimate.high  # type: ignore[operator]
        widths.append(found.accuracy.high - found.accuracy.low)  # type: ignore[operator]
    assert widths[1] < widths[0] / 2


def test_a_judge_that_guesses_is_not_told_from_chance() -> None:
    rng = np.random.default_rng(1)
    judged = [
        one
        for number in range(60)
        for one in group(str(number), rng.random(6).tolist(), rng.integers(0, 2, 6).astype(float).tolist())
    ]
    found = within_groups(judged)
    assert found is not None
    assert found.accuracy.low < 0.5 < found.accuracy.high  # type: ignore[operator]


def test_labels_that_are_all_the_same_say_nothing() -> None:
    judged = group("a", [0.0, 1.0], [1, 1], alone=True) + group("b", [0.5], [1], alone=True)
    assert (within_groups(judged), over_all(judged)) == (None, None)


def test_a_judge_that_ties_all_has_no_correlation() -> None:
    found = within_groups(group("a", [0.5, 0.5], [0, 1]) + group("b", [0.5, 0.5], [0, 1]))
    assert found is not None
    assert (found.accuracy.value, found.spearman.value, found.kendall.value) == (0.5, None, None)


def test_only_what_was_scored_alone_is_compared_over_all() -> None:
    assert over_all(group("a", [0.0, 1.0], [0, 1])) is None
