"""Who is dropped from a race, who wins it, and how often it is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from agentlightning_selection.config import Candidate, RacingConfig
from agentlightning_selection.paired import p_greater
from agentlightning_selection.race import Race


def config(**options: Any) -> RacingConfig:
    return RacingConfig(candidates=[Candidate(model="a"), Candidate(model="b")], **options)


def race_over(rewards: list[Any], costs: list[float] | None = None, *, batch: int = 30, **options: Any) -> Race:
    """A race over recorded rewards, one row of tasks per candidate, round by round, until it is decided."""
    tasks = len(rewards[0])
    race = Race(len(rewards), math.ceil(tasks / batch), config(**options))
    for start in range(0, tasks, batch):
        for candidate in race.remaining:
            for task in range(start, min(start + batch, tasks)):
                cost = costs[candidate] if costs else 0.0
                race.record(candidate, str(task), rewards[candidate][task], cost)
        race.eliminate()
        if race.decided:
            break
    return race


def winner(race: Race) -> int | None:
    verdict = race.verdict(race.remaining, ["a", "b", "c", "d"])
    return None if verdict is None else verdict.winner


def draws(*rates: float, tasks: int, seed: int = 0) -> list[list[float]]:
    """Rewards 0 or 1; candidates of nearly one rate solve nearly the same tasks."""
    hardness = np.random.default_rng(seed).random(tasks)
    return [(hardness < rate).astype(float).tolist() for rate in rates]


@pytest.mark.parametrize(
    ("freedom", "t", "p"), [(10, 1.812, 0.05), (10, 2.764, 0.01), (30, 3.385, 0.001), (30, 2.042, 0.025)]
)
def test_p_is_that_of_students_t(freedom: int, t: float, p: float) -> None:
    """Against the usual table, on differences that with the added pairs have mean t and standard error 1."""
    count = freedom + 1
    differences = np.full(count - 2, t * count / (count - 2))
    spread = math.sqrt(count * (freedom + t**2) - (differences**2).sum())
    assert p_greater(differences, 0.0, spread) == pytest.approx(p, rel=0.03)


def test_ties_say_little_when_they_are_few() -> None:
    assert p_greater(np.zeros(30), -0.02, 1.0) > 0.1
    assert p_greater(np.zeros(3000), -0.02, 1.0) < 1e-6


def test_a_candidate_that_is_clearly_worse_is_dropped_early() -> None:
    race = race_over(draws(0.8, 0.3, 0.75, tasks=600))
    assert 1 not in race.remaining
    assert winner(race) == 0


def test_nobody_is_dropped_before_the_minimum() -> None:
    assert race_over([[1.0] * 20, [0.0] * 20], batch=10, minimum=30).remaining == [0, 1]
    assert race_over([[1.0] * 40, [0.0] * 40], batch=10, minimum=30).remaining == [0]


def test_pairing_sees_a_difference_that_the_hardness_of_tasks_hides() -> None:
    """Rewards spread over 0 … 100, one candidate always better by about 1."""
    rng = np.random.default_rng(0)
    hardness = rng.uniform(0, 100, 300)
    worse = hardness - 1 + rng.normal(0, 0.5, 300)
    better = hardness + rng.normal(0, 0.5, 300)
    difference = better.mean() - worse.mean()
    assert difference < 2 * math.sqrt(2 * hardness.var() / 300)
    assert race_over([worse.tolist(), better.tolist()]).remaining == [1]


def test_equal_candidates_stay_and_the_first_wins() -> None:
    same = draws(0.5, 0.5, tasks=300)
    race = race_over(same)
    assert race.remaining == [0, 1]
    assert winner(race) == 0


def test_the_best_is_dropped_no_more_often_than_the_confidence_allows() -> None:
    """Independent draws, rates so near that noise decides: 200 races, looks after every 10 tasks."""
    lost = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rewards = [(rng.random(200) < rate).astype(float).tolist() for rate in (0.5, 0.5, 0.49, 0.48)]
        lost += 0 not in race_over(rewards, batch=10, confidence=0.9).remaining
    assert lost <= 20


def test_cost_counts_as_much_as_its_weight_says() -> None:
    rewards = draws(0.8, 0.7, tasks=900)
    assert winner(race_over(rewards, [0.02, 0.001])) == 0
    assert winner(race_over(rewards, [0.02, 0.001], cost_weight=10.0)) == 1


def test_the_cheapest_that_is_good_enough_wins() -> None:
    rewards = draws(0.80, 0.79, 0.40, 0.795, tasks=3000)
    race = race_over(rewards, [0.02, 0.002, 0.0001, 0.004], objective="cheapest", margin=0.05)
    assert winner(race) == 1
    assert race.remaining == [0, 1]
    assert race.decided


def test_a_dear_one_is_not_dropped_while_it_may_be_better_by_more_than_the_margin() -> None:
    rng = np.random.default_rng(2)
    cheap, dear = (rng.random(60) < 0.75).astype(float), (rng.random(60) < 0.75).astype(float)
    race = race_over([dear.tolist(), cheap.tolist()], [0.02, 0.001], objective="cheapest", margin=0.01)
    assert race.remaining == [0, 1]
    assert not race.decided


def test_among_equal_prices_the_better_one_wins() -> None:
    assert winner(race_over(draws(0.5, 0.53, tasks=200), objective="cheapest", margin=0.05)) == 1


def test_tasks_that_one_side_could_not_be_scored_on_are_not_compared() -> None:
    race = Race(2, 1, config())
    for task in range(60):
        race.record(0, str(task), 0.5, 0.0)
        race.record(1, str(task), 0.6 if task % 2 else None, 0.0)
    race.eliminate()
    assert race.remaining == [1]
    assert race.win_rate(1) == 1.0


def test_a_candidate_that_never_answers_is_dropped_and_cannot_win() -> None:
    race = race_over([[None] * 60, [0.2] * 60])
    assert race.remaining == [1]
    assert winner(race) == 1
    silent = race_over([[None] * 10, [0.2] * 10])
    assert silent.remaining == [0, 1]
    assert winner(silent) == 1
    assert winner(race_over([[None] * 60, [None] * 60])) is None


def test_what_was_spent_counts_every_rollout() -> None:
    race = race_over([[None] * 10, [1.0] * 10], [0.5, 0.25])
    assert race.spent == pytest.approx(7.5)
    assert race.cost(0) == 0.5
    assert math.isnan(race.reward(0))


def test_win_rates_count_ties_half() -> None:
    race = race_over([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    assert (race.win_rate(0), race.win_rate(1)) == (0.625, 0.375)
