"""Rewards → advantages of the rows of every rollout, and the numbers of a collection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agentlightning.records import Group
from agentlightning_grpo.advantages import AdvantageConfig, advantages, advantages_by_component


def assign(groups: Sequence[Group], config: AdvantageConfig) -> None:
    """Gives every transition of a rollout the rollout's advantage, which is over the rollouts of its group."""
    if config.normalize_then_sum:
        parts = [part for group in groups for member in group.rollouts for part in member.rollout.rewards]
        weights = {part.name: part.weight for part in parts}
        tables = [_components(group, sorted(weights)) for group in groups]
        scores = advantages_by_component(tables, np.array([weights[name] for name in sorted(weights)]), config)
    else:
        scores = advantages(
            [np.array([member.rollout.total_reward for member in group.rollouts]) for group in groups], config
        )
    for group, of_group in zip(groups, scores, strict=True):
        for member, advantage in zip(group.rollouts, of_group, strict=True):
            member.set_advantage(float(advantage))


def describe(groups: Sequence[Group]) -> dict[str, float]:
    """The numbers of a collection, for the log.

    ``reward_spread`` is the mean over the groups of the standard deviation within them.
    """
    rewards = [[float(one.rollout.total_reward or 0.0) for one in group.rollouts] for group in groups if group.rollouts]
    every = [reward for group in rewards for reward in group]
    members = [member for group in groups for member in group.rollouts]
    return {
        "reward": float(np.mean(every)) if every else 0.0,
        "reward_std": float(np.std(every)) if every else 0.0,
        "reward_spread": float(np.mean([np.std(group) for group in rewards])) if rewards else 0.0,
        "groups_skipped": sum(not group.has_signal for group in groups),
        "rollouts_left_out": sum(len(group.excluded) for group in groups),
        "rollouts_failed": sum(member.rollout.failure is not None for member in members),
        "sequences": sum(len(member.rows) for member in members),
        "tokens": sum(row.trained_tokens for member in members for row in member.rows),
        "sequence_breaks": sum(member.prefix_breaks for member in members),
    }


def _components(group: Group, names: Sequence[str]) -> np.ndarray:
    """The values (R, K) of the named rewards, NaN where a rollout has none; one given several times is summed."""
    table = np.full((len(group.rollouts), len(names)), np.nan)
    for row, member in enumerate(group.rollouts):
        for part in member.rollout.rewards:
            column = names.index(part.name)
            table[row, column] = np.nan_to_num(table[row, column]) + (part.value or 0.0)
    return table
