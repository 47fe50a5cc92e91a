"""Tests of means by betting: their error however often one looks, what they notice, and what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from agentlightning.betting import block_differences, log_e_values, p_value


def blocks(rng: np.random.Generator, first: float, second: float, *, share: float, runs: int) -> np.ndarray:
    """The differences of a canary that succeeds with the probability ``first`` and gets a share of the runs."""
    in_first = rng.random(runs) < share
    return block_differences(in_first, rng.random(runs) < np.where(in_first, first, second))


def test_a_mean_that_is_not_above_the_bound_is_called_so_in_few_of_many_sequences_at_any_of_1000_looks() -> None:
    rng = np.random.default_rng(1)
    draws = {
        "rare and large": np.where(rng.random((400, 1000)) < 0.1, 0.9, -0.1),
        "even": np.where(rng.random((400, 1000)) < 0.5, 1.0, -1.0),
    }
    for name, differences in draws.items():
        ever = (log_e_values(differences) >= np.log(1 / 0.05)).any(axis=1)
        assert ever.mean() <= 0.05, name
        below = (log_e_values(0.95 * differences - 0.05, -0.05) >= np.log(1 / 0.05)).any(axis=1)
        assert below.mean() <= 0.05, name


def test_the_same_differences_give_the_same_e_value_in_whichever_order() -> None:
    differences = np.array([1.0, -1.0, 0.5, 0.0, -0.25, 1.0])
    assert log_e_values(differences)[-1] == pytest.approx(log_e_values(differences[::-1])[-1])


def test_one_difference_wins_or_loses_what_was_bet() -> None:
    assert np.exp(log_e_values(np.array([1.0, -1.0]))[0]) > 1
    assert np.exp(log_e_values(np.array([0.0, 0.0]))[-1]) == pytest.approx(1.0)
    assert p_value(np.array([])) == 1.0
    assert p_value(np.array([-1.0, -1.0])) == 1.0


def test_differences_outside_of_their_bounds_are_refused() -> None:
    for wrong in (1.5, np.nan):
        with pytest.raises(ValueError, match="differences are in"):
            log_e_values(np.array([0.0, wrong]))


def test_a_block_ends_as_soon_as_it_holds_both_groups() -> None:
    in_first = np.array([0, 0, 1, 1, 1, 0, 1], bool)
    values = np.array([0.0, 1.0, 1.0, 0.5, 1.0, 0.25, 1.0])
    assert block_differences(in_first, values).tolist() == [1.0 - 0.5, 0.75 - 0.25]


def test_groups_that_are_alike_differ_by_nothing_on_average_however_unevenly_they_are_drawn() -> None:
    rng = np.random.default_rng(2)
    for share in (0.05, 0.5, 0.9):
        differences = np.concatenate([blocks(rng, 0.3, 0.3, share=share, runs=2000) for _ in range(20)])
        assert abs(differences.mean()) < 4 * differences.std() / np.sqrt(len(differences))
