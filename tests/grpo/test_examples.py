"""Advantages over the rollouts of a group, given to every row of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_run import group

from agentlightning.records import Group, Reward
from agentlightning_grpo.advantages import AdvantageConfig
from agentlightning_grpo.examples import assign, describe
from agentlightning_grpo.presets import PRESETS

TRL = PRESETS["trl-1.16/grpo"].advantage


def advantages(one: Group, config: AdvantageConfig) -> list[float]:
    """What each row of a group was given, the same on each token that the policy wrote."""
    assign([one], config)
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
    assign(groups, TRL)
    assert [one.has_signal for one in groups] == [False, True, False]
    assert describe(groups)["groups_skipped"] == 2


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
    assign(groups, TRL)
    numbers = describe(groups)
    assert numbers["reward"] == 0.75
    assert numbers["reward_spread"] == 0.25
    assert numbers["groups_skipped"] == 1
    assert numbers["rollouts_left_out"] == 1
    assert numbers["sequences"] == 5
    assert numbers["sequence_breaks"] == 1
    assert numbers["tokens"] == sum(int(row.mask.sum()) for one in groups for row in one.rows)
