"""Which demonstrations are good, and how sets of them are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentlightning.records import Reward, Rollout
from agentlightning_prompt.demonstrations import BY_HAND, Demonstration
from agentlightning_prompt.pool import Pool, distinct_tasks, draw


def shown(question: str, *, task: str | None = None, **fields: Any) -> Demonstration:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "yes"}]
    return Demonstration(role="a", messages=messages, task_id=task or question, source=question, **fields)


def pool_of(outcomes: list[float], found: list[Demonstration], threshold: float | None = None) -> Pool:
    pool = Pool(["a"], threshold=threshold)
    pool.saw(
        Rollout(id=f"{place}", run_id="r", group_id="g", task_id="t", purpose="train", status="succeeded",
                rewards=[Reward(name="x", value=value)])
        for place, value in enumerate(outcomes)
    )  # fmt: skip
    pool.add(found)
    return pool


def good(pool: Pool) -> list[str]:
    return [one.source for one in pool.good("a")]


def test_without_a_threshold_good_is_what_is_above_the_mean_the_best_first() -> None:
    found = [shown("low", outcome=0.1), shown("high", outcome=0.9), shown("middle", outcome=0.6)]
    assert good(pool_of([0.1, 0.9, 0.6], found)) == ["high", "middle"]


def test_a_threshold_says_what_is_good() -> None:
    found = [shown("high", outcome=0.9), shown("middle", outcome=0.6)]
    pool = pool_of([0.9, 0.6, 0.0], found, threshold=0.8)
    assert good(pool) == ["high"]


def test_below_the_threshold_the_best_so_far_are_promising() -> None:
    pool = pool_of([0.4, 0.0], [shown("some", outcome=0.4), shown("none", outcome=0.0)], threshold=1.0)
    assert good(pool) == []
    assert [one.source for one in pool.promising("a")] == ["some"]


def test_where_all_are_alike_they_are_good_if_they_were_worth_something() -> None:
    assert good(pool_of([1.0, 1.0], [shown("x", outcome=1.0)])) == ["x"]
    assert good(pool_of([0.0, 0.0], [shown("x", outcome=0.0)])) == []


def test_of_equal_ones_the_shortest_is_first() -> None:
    found = [shown("a long question", outcome=1.0), shown("short", outcome=1.0)]
    assert good(pool_of([1.0, 0.0], found)) == ["short", "a long question"]


def test_a_conversation_whose_own_steps_were_bad_is_not_good_though_the_rollout_was() -> None:
    found = [shown("bad", outcome=1.0, step_reward=0.0), shown("fine", outcome=1.0, step_reward=1.0)]
    assert good(pool_of([1.0, 0.0], found)) == ["fine"]


def test_a_conversation_whose_own_steps_were_the_best_is_good_though_the_rollout_was_not() -> None:
    found = [shown("bad", outcome=0.0, step_reward=0.0), shown("fine", outcome=0.0, step_reward=1.0)]
    assert good(pool_of([0.0, 0.0], found)) == ["fine"]


def test_what_says_the_same_is_kept_once_with_the_better_outcome() -> None:
    found = [shown("x", outcome=0.7), shown("x", task="other", outcome=1.0)]
    assert [(one.task_id, one.outcome) for one in pool_of([0.0, 1.0], found).good("a")] == [("other", 1.0)]


def test_a_pool_is_full_with_enough_tasks_that_are_as_good_as_the_best() -> None:
    pool = pool_of([1.0, 0.8, 0.0], [shown("x", outcome=1.0), shown("y", outcome=0.8)])
    assert pool.is_full(1)
    assert not pool.is_full(2)
    pool.add([shown("z", outcome=1.0)])
    assert pool.is_full(2)


def test_those_by_hand_are_good_and_first() -> None:
    pool = pool_of([1.0, 0.0], [shown("x", outcome=1.0), shown("hand", task=BY_HAND)])
    assert good(pool) == ["hand", "x"]


def test_a_set_has_one_of_each_task() -> None:
    found = [shown("one", task="t"), shown("two", task="t"), shown("three", task="u")]
    assert len(distinct_tasks(found)) == 2
    assert len(draw(found, 3, np.random.default_rng(0), max_characters=1000)) == 2


def test_a_set_fits_in_its_characters() -> None:
    found = [shown("q" * 20 + str(number)) for number in range(4)]
    assert len(draw(found, 4, np.random.default_rng(0), max_characters=2 * found[0].characters)) == 2


def test_a_set_is_drawn_to_be_unlike_itself() -> None:
    found = [shown(f"how many apples {number}") for number in range(8)] + [
        shown("who wrote it"),
        shown("when was that"),
    ]
    pairs = [draw(found, 2, np.random.default_rng(seed), max_characters=1000) for seed in range(40)]
    alike = sum(all("apples" in one.source for one in pair) for pair in pairs)
    assert alike < 12  # of pairs drawn evenly 56 / 90, that is 25 of 40


def test_the_same_seed_draws_the_same_set() -> None:
    found = [shown(f"question {number}") for number in range(10)]
    first, second = (draw(found, 4, np.random.default_rng(3), max_characters=1000) for _ in range(2))
    assert first == second
