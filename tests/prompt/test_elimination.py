"""Which candidate is left, for how many rollouts, and how often chance alone is taken for better."""

from __future__ import annotations

import numpy as np
import pytest

from agentlightning_prompt.elimination import Plan, mean, p_better, plan, survivors


def scores(values: list[float | None]) -> dict[str, float | None]:
    return {f"t{place}": value for place, value in enumerate(values)}


def test_the_better_half_goes_on_until_one_is_left() -> None:
    made = plan(12, 64, rollouts=None)
    assert made is not None
    assert [(one.candidates, one.tasks, one.kept) for one in made.rounds] == [(12, 8, 6), (6, 8, 3), (3, 16, 1)]
    assert made.confirmed == 32
    assert made.rollouts == 13 * 8 + 7 * 8 + 4 * 16 + 2 * 32


@pytest.mark.parametrize("rollouts", [24, 60, 100, 150, 200, 280, 1000])
def test_a_plan_never_costs_more_than_there_is(rollouts: int) -> None:
    made = plan(12, 64, rollouts=rollouts)
    assert made is not None
    assert made.rollouts <= rollouts
    assert made.rounds[-1].kept == 1


def test_too_few_rollouts_are_no_plan() -> None:
    least = plan(1, 12, rollouts=None)
    assert least is not None
    assert plan(12, 64, rollouts=least.rollouts - 1) is None


def test_a_larger_budget_never_compares_less() -> None:
    made = [found for rollouts in range(24, 300, 7) if (found := plan(12, 64, rollouts=rollouts)) is not None]

    def size(one: Plan) -> int:
        return one.candidates + one.confirmed

    assert [size(one) for one in made] == sorted(size(one) for one in made)


def test_the_best_stay_and_of_equal_ones_the_shorter() -> None:
    found = [scores([0.0, 1.0]), scores([1.0, 1.0]), scores([1.0, 0.0])]
    assert survivors(found, [5.0, 9.0, 3.0], keep=2, alpha=0.05) == [1, 2]


def test_what_is_surely_worse_than_the_best_does_not_stay() -> None:
    found = [scores([1.0] * 12), scores([0.0] * 12), scores([1.0] * 11 + [0.0])]
    assert survivors(found, [1.0, 1.0, 1.0], keep=3, alpha=0.05) == [0, 2]


def test_tasks_that_one_of_two_could_not_score_say_nothing() -> None:
    assert p_better(scores([1.0] * 6 + [None]), scores([0.0] * 6 + [0.0])) == pytest.approx(1 / 64)
    assert p_better(scores([None]), scores([1.0])) == 1.0


def test_a_candidate_without_any_score_is_the_worst() -> None:
    assert mean(scores([None])) < mean(scores([-5.0]))


def test_equal_candidates_are_taken_for_better_than_none_in_at_most_one_of_twenty_runs() -> None:
    """The winner is confirmed on tasks that it was not chosen by, so being the best of twelve does not help it."""
    rng = np.random.default_rng(0)
    made = plan(12, 64, rollouts=None)
    assert made is not None
    better = 0
    for _ in range(400):
        drawn = (rng.random((13, 64)) < 0.4).astype(float)
        left, done = list(range(12)), 0
        for one in made.rounds:
            done += one.tasks
            kept = survivors(
                [scores(list(drawn[place, :done])) for place in left], [1.0] * len(left), keep=one.kept, alpha=0.05
            )
            left = [left[place] for place in kept]
        best, none = (scores(list(drawn[place, -made.confirmed :])) for place in (left[0], 12))
        better += p_better(best, none) <= 0.05
    assert better <= 20
