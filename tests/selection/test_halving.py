"""How a budget is divided over rounds, and how often the best candidate is found with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_selection.halving import kept, least_budget, rounds_of, tasks_of_round


def spent(candidates: int, budget: int, eta: int) -> tuple[int, list[tuple[int, int]]]:
    """Rollouts in all, and (candidates, tasks) of each round."""
    used, rounds = 0, []
    while candidates > 1:
        tasks = tasks_of_round(candidates, budget - used, eta)
        rounds.append((candidates, tasks))
        used += candidates * tasks
        candidates = kept(candidates, eta)
    return used, rounds


def test_the_rounds_of_karnin() -> None:
    """8 candidates, 240 rollouts: 80 for each of log2(8) rounds."""
    assert spent(8, 240, 2) == (240, [(8, 10), (4, 20), (2, 40)])


@given(candidates=st.integers(2, 40), more=st.integers(0, 5000), eta=st.integers(2, 5))
def test_a_budget_is_never_exceeded_and_used_up_but_for_less_than_a_last_round(
    candidates: int, more: int, eta: int
) -> None:
    budget = least_budget(candidates, eta) + more
    used, rounds = spent(candidates, budget, eta)
    assert budget - rounds[-1][0] < used <= budget
    assert all(tasks >= 1 for _, tasks in rounds)
    assert len(rounds) == rounds_of(candidates, eta)


@pytest.mark.parametrize(("budget", "least"), [(400, 0.8), (2000, 0.97)])
def test_the_best_of_eight_is_found(budget: int, least: float) -> None:
    """Rates 0.8, 0.6 and below, paired on the same tasks; 300 simulated selections."""
    rates = np.array([0.8, 0.6, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2])
    rng, found = np.random.default_rng(0), 0
    for _ in range(300):
        given_, left, used = rng.random((budget, 8)) < rates, np.arange(8), 0
        _, rounds = spent(8, budget, 2)
        for _, tasks in rounds:
            used += tasks
            order = np.argsort(-given_[:used, left].mean(axis=0), kind="stable")
            left = left[order[: kept(len(left), 2)]]
        found += left[0] == 0
    assert found >= least * 300
