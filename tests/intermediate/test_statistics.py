"""Effects within groups, their p-values, and the correction for many looks."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_intermediate.statistics import contrasts, differences, holm, informative, permutation_p

GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
PRESENT = np.array([1, 0, 0, 0, 1, 1, 0, 1, 1], np.bool_)
OUTCOMES = np.array([0.0, 1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 0.0])


def test_the_effect_is_the_mean_difference_within_groups_and_a_group_that_has_it_throughout_says_nothing() -> None:
    assert informative(PRESENT, GROUPS) == [0, 1]
    assert differences(PRESENT, OUTCOMES, GROUPS).tolist() == pytest.approx([-2.5 / 3, -0.5])


@given(st.integers(0, 2**32 - 1))
def test_contrasts_add_outcomes_up_to_the_effects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, present, outcomes = rng.integers(0, 6, 30), rng.random((30, 4)) < 0.3, rng.normal(size=30)
    effects = outcomes @ contrasts(present, groups)

    for place in range(4):
        within = differences(present[:, place], outcomes, groups)
        assert effects[place] == pytest.approx(within.mean() if len(within) else 0.0)


def test_p_is_that_of_all_permutations_within_the_groups() -> None:
    weights = contrasts(PRESENT[:, None], GROUPS)[:, 0]
    observed = abs(OUTCOMES @ weights)
    shuffles = product(*(permutations(OUTCOMES[group == GROUPS]) for group in range(3)))
    extreme = [abs(np.concatenate(shuffle) @ weights) >= observed - 1e-9 for shuffle in shuffles]

    (p,) = permutation_p(weights[:, None], OUTCOMES, GROUPS)
    assert p == pytest.approx(np.mean(extreme), abs=0.02)


def test_the_order_of_rollouts_and_the_names_of_groups_do_not_matter() -> None:
    """Up to the draws: they are made in the order of the groups."""
    rng = np.random.default_rng(1)
    order = rng.permutation(len(GROUPS))
    (p,) = permutation_p(contrasts(PRESENT[:, None], GROUPS), OUTCOMES, GROUPS)
    (other,) = permutation_p(contrasts(PRESENT[order, None], 70 - GROUPS[order]), OUTCOMES[order], 70 - GROUPS[order])

    assert other == pytest.approx(p, abs=0.02)


def test_a_seed_gives_the_same_p_again() -> None:
    weights = contrasts(PRESENT[:, None], GROUPS)
    first, again, other = (permutation_p(weights, OUTCOMES, GROUPS, seed=seed)[0] for seed in (3, 3, 4))

    assert first == again
    assert first != other


def test_under_chance_alone_p_is_below_a_level_no_more_often_than_the_level() -> None:
    """200 draws: 10 are expected below 0.05, and 17 are exceeded once in a hundred times."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 6)
    below = 0
    for _ in range(50):
        outcomes = (rng.random(48) < 0.5).astype(float)
        present = rng.random((48, 4)) < 0.3
        below += int((permutation_p(contrasts(present, groups), outcomes, groups) < 0.05).sum())
    assert below <= 17


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.04, 0.01], [0.04, 0.02]),
    ],
)
def test_holm(p: list[float], corrected: list[float]) -> None:
    assert holm(p) == pytest.approx(corrected)
