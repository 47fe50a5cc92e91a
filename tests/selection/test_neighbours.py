"""What nearest neighbours predict, and that what they are chosen by is no training error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agentlightning_selection.neighbours import Neighbours, cross_validated
from agentlightning_selection.router import Scaling


def of_two_kinds(tasks: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features on the unit circle in two bunches; model 0 is good at the one kind, model 1 at the other."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(2, size=tasks)
    angles = kind * math.pi / 2 + rng.normal(scale=0.2, size=tasks)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outcomes = (rng.random((tasks, 2)) < np.where(np.stack([kind, 1 - kind], axis=1) == 1, 0.9, 0.2)).astype(float)
    return features, outcomes, np.tile([0.01, 0.001], (tasks, 1))


def test_one_neighbour_gives_its_own_outcome_and_dollars() -> None:
    features, outcomes, costs = of_two_kinds(50)
    found, dollars = Neighbours(features, outcomes, costs, count=1, temperature=1.0).predict(features)
    assert found == pytest.approx(outcomes)
    assert dollars == pytest.approx(costs)


def test_weights_are_a_softmax_of_the_cosine_over_the_temperature() -> None:
    features, outcomes, costs = of_two_kinds(40)
    asked, temperature = features[0], 0.3
    weights = np.exp(features @ asked / temperature)
    found, _ = Neighbours(features, outcomes, costs, count=40, temperature=temperature).predict(asked[None])
    assert found[0] == pytest.approx(weights @ outcomes / weights.sum(), rel=1e-4)


def test_what_could_not_be_scored_is_left_out() -> None:
    features, outcomes, costs = of_two_kinds(30)
    outcomes[::2, 0] = math.nan
    found, _ = Neighbours(features, outcomes, costs, count=30, temperature=1e9).predict(features[:1])
    assert found[0] == pytest.approx([np.nanmean(outcomes[:, 0]), outcomes[:, 1].mean()], rel=1e-4)


def test_cross_validation_chooses_what_predicts_new_tasks_best() -> None:
    """One neighbour is right about every training task, and about new ones less than many."""
    features, outcomes, costs = of_two_kinds(300)
    chosen = cross_validated(
        features,
        outcomes,
        costs,
        counts=[1, 5, 50],
        temperatures=[0.1, 1.0],
        folds=5,
        rng=np.random.default_rng(0),
    )
    new, truth, _ = of_two_kinds(2000, seed=1)
    errors = {
        count: float(
            ((Neighbours(features, outcomes, costs, count=count, temperature=1.0).predict(new)[0] - truth) ** 2).mean()
        )
        for count in (1, 50)
    }
    assert chosen.count == 50
    assert chosen.error == pytest.approx(errors[50], rel=0.15)
    assert chosen.error < errors[1]


def test_a_predicted_task_is_no_part_of_what_predicts_it() -> None:
    """Outcomes that have nothing to do with the features: their own neighbour is never found."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    outcomes = rng.integers(2, size=(200, 2)).astype(float)
    chosen = cross_validated(features, outcomes, outcomes, counts=[1], temperatures=[1.0], folds=4, rng=rng)
    assert chosen.error == pytest.approx(0.5, abs=0.08)


def test_a_functions_features_do_not_count_for_their_units() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([rng.normal(size=100), rng.normal(size=100) * 1e6, np.full(100, 3.0)], axis=1)
    scaled = Scaling.of(features, is_embedding=False)(features)
    assert scaled.std(axis=0) == pytest.approx([3**-0.5, 3**-0.5, 0], abs=1e-4)
    assert scaled.mean(axis=0) == pytest.approx(0, abs=1e-4)
