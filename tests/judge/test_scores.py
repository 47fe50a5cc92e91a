"""Comparisons → scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlightning_judge.scores import expected_wins, log_strengths, mid_ranks, pairs, parts, ranking_wins, win_rates

PLACES = st.lists(st.integers(0, 5), min_size=2, max_size=9)


@settings(max_examples=40)
@given(PLACES)
def test_a_ranking_gives_its_own_order_back_with_its_ties(places: list[int]) -> None:
    ranks = mid_ranks(log_strengths(ranking_wins(places)))
    np.testing.assert_allclose(ranks, mid_ranks(-np.array(places, float)))


@settings(max_examples=40)
@given(PLACES)
def test_scores_are_in_range_and_their_mean_is_a_half(places: list[int]) -> None:
    wins = ranking_wins(places)
    for scores in (mid_ranks(log_strengths(wins)), expected_wins(log_strengths(wins)), win_rates(wins)):
        assert scores.min() >= 0.0
        assert scores.max() <= 1.0
        assert scores.mean() == pytest.approx(0.5, abs=1e-6)


@settings(max_examples=40)
@given(PLACES, st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_are_given_changes_nothing(places: list[int], random: object) -> None:
    order = list(range(len(places)))
    random.shuffle(order)  # type: ignore[attr-defined]
    wins = ranking_wins(places)
    np.testing.assert_allclose(log_strengths(wins[np.ix_(order, order)]), log_strengths(wins)[order], atol=2e-6)


def test_strengths_are_those_of_the_model() -> None:
    """Where every pair was compared often, θᵢ / (θᵢ + θⱼ) is how often i won."""
    strength = np.array([4.0, 2.0, 1.0])
    wins = 1e6 * strength[:, None] / (strength[:, None] + strength[None, :])
    np.fill_diagonal(wins, 0.0)
    found = log_strengths(wins)
    np.testing.assert_allclose(found - found[2], np.log(strength), atol=1e-3)


def test_strengths_are_where_the_likelihoods_slope_is_zero() -> None:
    wins = np.array([[0, 3, 1, 0], [1, 0, 2, 4], [1, 0, 0, 1], [2, 0, 3, 0]], float)
    strength = np.exp(log_strengths(wins))
    beats = strength[:, None] / (strength[:, None] + strength[None, :])
    slope = wins.sum(axis=1) - ((wins + wins.T) * beats).sum(axis=1) + 0.5 - strength / (strength + 1.0)
    np.testing.assert_allclose(slope, 0.0, atol=1e-5)


@pytest.mark.parametrize(("count", "opponents"), [(10, 4), (11, 5), (12, 5), (9, 8), (30, 3), (3, 2)])
def test_each_is_compared_with_as_many_others_and_none_twice(count: int, opponents: int) -> None:
    chosen = pairs(count, opponents, list(range(count)))
    assert len({frozenset(pair) for pair in chosen}) == len(chosen)
    met = np.bincount(np.array(chosen).ravel(), minlength=count)
    odd = opponents % 2 and count % 2 and count - 1 > opponents
    assert set(met.tolist()) == {min(count - 1, opponents - odd)}


@pytest.mark.parametrize(("count", "at_once"), [(5, 2), (9, 4), (20, 8), (9, 8)])
def test_parts_hang_together(count: int, at_once: int) -> None:
    reached, found = {0}, [set(part) for part in parts(count, at_once, list(range(count)))]
    for _ in range(count):
        reached |= {one for part in found if part & reached for one in part}
    assert reached == set(range(count))
    assert {len(part) for part in found} == {at_once}
