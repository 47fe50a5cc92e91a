"""Groups → examples: advantages over rollouts, given to every row of theirs."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_run import group

from agentlightning.records import Reward
from agentlightning_grpo.advantages import AdvantageConfig
from agentlightning_grpo.examples import describe, score
from agentlightning_grpo.presets import PRESETS

TRL = PRESETS["trl-1.16/grpo"].advantage


def test_a_rollout_of_three_rows_counts_once_and_gives_each_row_its_advantage() -> None:
    (scored,) = score([group("a", [1.0, 0.0], rows=[3, 1])], TRL)
    assert [example.advantage for example in scored.examples] == pytest.approx([0.7071] * 3 + [-0.7071], abs=1e-4)
    (unscaled,) = score([group("a", [1.0, 0.0], rows=[3, 1])], AdvantageConfig(scale="none"))
    assert [example.advantage for example in unscaled.examples] == [0.5, 0.5, 0.5, -0.5]


def test_a_rollout_without_rows_still_counts_in_the_statistic() -> None:
    (scored,) = score([group("a", [1.0, 0.0, 0.0], rows=[1, 1, 0])], AdvantageConfig(scale="none"))
    assert [example.advantage for example in scored.examples] == pytest.approx([2 / 3, -1 / 3])


def test_groups_without_spread_teach_nothing() -> None:
    scored = score([group("a", [1.0, 1.0]), group("b", [1.0, 0.0]), group("c", [0.5])], TRL)
    assert [one.informative for one in scored] == [False, True, False]
    assert describe([], scored)["groups_skipped"] == 2


def test_the_order_in_which_groups_came_does_not_matter() -> None:
    groups = [group(name, [1.0, 0.0]) for name in "cab"]
    names = [one.examples[0].sequence.rollout_id for one in score(groups, TRL)]
    assert names == ["a.0", "b.0", "c.0"]


def test_components_are_normalized_before_they_are_weighed() -> None:
    """`small` counts twice as much as `large`, though its values are a hundredth."""
    one = group("a", [0.0, 0.0])
    for rollout, small, large in zip(one.rollouts, (0.01, 0.0), (0.0, 1.0), strict=True):
        rollout.rewards = [Reward(name="small", value=small, weight=2.0), Reward(name="large", value=large)]
    (scored,) = score([one], AdvantageConfig(normalize_then_sum=True, eps=0.0))
    assert [example.advantage for example in scored.examples] == pytest.approx([np.sqrt(0.5), -np.sqrt(0.5)])
    (summed,) = score([one], AdvantageConfig())
    assert summed.examples[0].advantage < 0


def test_what_is_logged_of_a_collection() -> None:
    groups = [group("a", [1.0, 0.0], rows=[2, 1]), group("b", [1.0, 1.0])]
    groups[0].left_out = [groups[1].rollouts[0]]
    groups[0].trajectories[0][0].breaks = 1
    numbers = describe(groups, score(groups, TRL))
    assert numbers["reward"] == 0.75
    assert numbers["reward_spread"] == 0.25
    assert numbers["groups_skipped"] == 1
    assert numbers["rollouts_left_out"] == 1
    assert numbers["sequences"] == 5
    assert numbers["sequence_breaks"] == 1
    assert numbers["tokens"] == sum(
        int(row.mask.sum()) for one in groups for parts in one.trajectories for part in parts for row in part.sequences
    )
