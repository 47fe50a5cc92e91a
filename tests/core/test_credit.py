"""Credit: what broadcast gives each row, and what becomes of a credit that breaks its word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from drawn_run import group
from drawn_run import row as drawn_row

from agentlightning.advantages import AdvantageConfig
from agentlightning.credit import Broadcast, Credit, give_credit, load_credit
from agentlightning.errors import AlgorithmError, ConfigError, PluginError
from agentlightning.policy_gradient import describe
from agentlightning.records import Reward
from agentlightning.training_rows import Group, Transition

TRL = AdvantageConfig()


def advantages(one: Group, config: AdvantageConfig) -> list[float]:
    """What each row of a group was given, the same on each token that the policy wrote."""
    Broadcast(config).assign([one])
    for row in one.rows:
        assert len(set(row.advantages[row.mask].tolist())) == 1
        assert not row.advantages[~row.mask].any()
    return [float(row.advantages[row.mask][0]) for row in one.rows]


def test_a_rollout_of_three_rows_counts_once_and_gives_each_row_its_advantage() -> None:
    one = group("a", [1.0, 0.0], rows=[3, 1])
    assert advantages(one, TRL) == pytest.approx([0.7071] * 3 + [-0.7071], abs=1e-4)
    assert advantages(one, AdvantageConfig(scale="none")) == [0.5, 0.5, 0.5, -0.5]


def test_a_rollout_without_rows_still_counts_in_the_statistic() -> None:
    one = group("a", [1.0, 0.0, 0.0], rows=[1, 1, 0])
    assert advantages(one, AdvantageConfig(scale="none")) == pytest.approx([2 / 3, -1 / 3])


def test_groups_without_spread_teach_nothing() -> None:
    groups = [group("a", [1.0, 1.0]), group("b", [1.0, 0.0]), group("c", [0.5])]
    Broadcast(TRL).assign(groups)
    assert [one.has_signal for one in groups] == [False, True, False]
    assert describe(groups, [one.rows for one in groups])["groups_skipped"] == 2


def test_components_are_normalized_before_they_are_weighed() -> None:
    """`small` counts twice as much as `large`, though its values are a hundredth."""
    one = group("a", [0.0, 0.0])
    for rollout, small, large in zip(one.all_rollouts, (0.01, 0.0), (0.0, 1.0), strict=True):
        rollout.rewards = [Reward(name="small", value=small, weight=2.0), Reward(name="large", value=large)]
    normalized = advantages(one, AdvantageConfig(normalize_then_sum=True, eps=0.0))
    assert normalized == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])
    assert advantages(one, AdvantageConfig())[0] < 0


def test_what_is_logged_of_a_collection() -> None:
    groups = [group("a", [1.0, 0.0], rows=[2, 1]), group("b", [1.0, 1.0])]
    groups[0].excluded = [groups[1].rollouts[0].rollout]
    Broadcast(TRL).assign(groups)
    numbers = describe(groups, [one.rows for one in groups])
    assert numbers["reward"] == 0.75
    assert numbers["reward_spread"] == 0.25
    assert numbers["groups_skipped"] == 1
    assert numbers["rollouts_left_out"] == 1
    assert numbers["sequences"] == 5
    assert numbers["sequence_breaks"] == 1
    assert numbers["tokens"] == sum(int(row.mask.sum()) for one in groups for row in one.rows)


def given(groups: list[Group], assign: Callable[[Sequence[Group]], None]) -> None:
    give_credit(assign, groups, name="Odd", step=3)


def test_a_credit_may_give_each_transition_of_a_rollout_its_own() -> None:
    one = two_calls()

    def by_index(groups: Sequence[Group]) -> None:
        for row in groups[0].rows:
            for index, transition in enumerate(row.transitions):
                row.set_advantage(transition, float(index))

    given([one], by_index)
    assert one.rows[0].advantages.tolist() == [0, 0, 0, 0, 1]


def two_calls() -> Group:
    """One rollout whose only row holds two transitions."""
    one = group("a", [1.0])
    one.rollouts[0].rows = [drawn_row("a.0", [1, 2], [3])]
    (made,) = one.rows
    made.token_ids, made.mask = np.arange(5, dtype=np.int32), np.array([False, False, True, False, True])
    made.logprobs, made.advantages = np.zeros(5, np.float32), np.zeros(5, np.float32)
    made.transitions = [Transition(span_id=str(at), policy="policy", start=at, end=at + 1) for at in (2, 4)]
    return one


def forgets(groups: Sequence[Group]) -> None:
    groups[0].rollouts[0].set_advantage(1.0)


def raises(groups: Sequence[Group]) -> None:
    raise KeyError("reward")


def is_infinite(groups: Sequence[Group]) -> None:
    for row in groups[0].rows:
        row.advantages[row.mask] = np.inf


def is_nan(groups: Sequence[Group]) -> None:
    groups[0].rollouts[0].set_advantage(float("nan"))


@pytest.mark.parametrize(
    ("assign", "message"),
    [
        (forgets, r"^step 3: the credit Odd gave tokens of rollout a\.1 no advantage"),
        (raises, r"^step 3: the credit Odd failed: KeyError: 'reward' \(.*test_credit\.py"),
        (is_infinite, r"^step 3: the credit Odd gave tokens of rollout a\.0 an infinite advantage"),
        (is_nan, r"^step 3: the credit Odd failed: ValueError: the advantage of .* rollout a\.0 is nan"),
        (lambda groups: None, r"^step 3: the credit Odd gave tokens of rollout a\.0 no advantage"),
    ],
    ids=["forgets a rollout", "raises", "infinite", "not a number", "does nothing"],
)
def test_a_credit_that_breaks_its_word_ends_the_step_by_name(
    assign: Callable[[Sequence[Group]], None], message: str
) -> None:
    with pytest.raises(AlgorithmError, match=message):
        given([group("a", [1.0, 0.0])], assign)


def test_advantages_of_another_credit_are_not_taken_for_its_own() -> None:
    one = group("a", [1.0, 0.0])
    given([one], Broadcast(TRL).assign)
    with pytest.raises(AlgorithmError, match="no advantage"):
        given([one], forgets)


def test_credit_is_named_with_its_options() -> None:
    assert load_credit("broadcast").config == AdvantageConfig()
    assert load_credit({"name": "broadcast", "scale": "none"}).config.scale == "none"
    merged = load_credit({"name": "broadcast", "ddof": 0}, advantage=AdvantageConfig(eps=1e-6))
    assert (merged.config.ddof, merged.config.eps) == (0, 1e-6)
    assert isinstance(load_credit(f"{__name__}:First"), First)


class First(Credit):
    def assign(self, groups: Sequence[Group]) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ("brodcast", PluginError, "credit 'brodcast' is not installed; did you mean 'broadcast'"),
        ({"scale": "none"}, ConfigError, "algorithm.credit.name: missing"),
        ({"name": "broadcast", "scal": "none"}, ConfigError, "algorithm.credit.scal: unknown key; did you mean scale"),
        ("builtins:int", PluginError, "expected a subclass of Credit"),
    ],
)
def test_a_credit_that_is_none_is_refused(choice: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_credit(choice)
