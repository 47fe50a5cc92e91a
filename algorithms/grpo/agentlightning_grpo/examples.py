"""Groups → what is trained on: the sequences of every rollout, each with its rollout's advantage."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np

from agentlightning.records import Group, Sequence
from agentlightning_grpo.advantages import AdvantageConfig, advantages, advantages_by_component


@dataclass(frozen=True)
class Example:
    """One row of training data and its advantage."""

    sequence: Sequence
    advantage: float

    @property
    def tokens(self) -> int:
        """How many tokens of it are trained."""
        return int(self.sequence.mask.sum())


@dataclass(frozen=True)
class ScoredGroup:
    """A group's examples. ``informative`` is false where every advantage is zero: nothing to learn from."""

    examples: list[Example]
    informative: bool


def score(groups: Seq[Group], config: AdvantageConfig) -> list[ScoredGroup]:
    """Advantages over the rollouts of each group, given to all sequences of the rollout.

    The result depends on what the groups hold, not on the order in which they came.
    """
    groups = sorted(groups, key=lambda group: (group.task.id, group.id))
    if config.normalize_then_sum:
        weights = {part.name: part.weight for group in groups for rollout in group.rollouts for part in rollout.rewards}
        tables = [_components(group, sorted(weights)) for group in groups]
        scores = advantages_by_component(tables, np.array([weights[name] for name in sorted(weights)]), config)
    else:
        scores = advantages(
            [np.array([rollout.total_reward for rollout in group.rollouts]) for group in groups], config
        )
    return [
        ScoredGroup(
            examples=[
                Example(sequence=sequence, advantage=float(advantage))
                for advantage, trajectories in zip(of_group, group.trajectories, strict=True)
                for trajectory in trajectories
                for sequence in trajectory.sequences
                if sequence.mask.any()
            ],
            informative=bool(np.any(of_group != 0)),
        )
        for group, of_group in zip(groups, scores, strict=True)
    ]


def describe(groups: Seq[Group], scored: Seq[ScoredGroup]) -> dict[str, float]:
    """The numbers of a collection, for the log.

    ``reward_spread`` is the mean over the groups of the standard deviation within them.
    """
    rewards = [[float(rollout.total_reward or 0.0) for rollout in group.rollouts] for group in groups if group.rollouts]
    every = [reward for group in rewards for reward in group]
    return {
        "reward": float(np.mean(every)) if every else 0.0,
        "reward_std": float(np.std(every)) if every else 0.0,
        "reward_spread": float(np.mean([np.std(group) for group in rewards])) if rewards else 0.0,
        "groups_skipped": sum(not group.informative for group in scored),
        "rollouts_left_out": sum(len(group.left_out) for group in groups),
        "rollouts_failed": sum(rollout.failure is not None for group in groups for rollout in group.rollouts),
        "sequences": sum(len(group.examples) for group in scored),
        "tokens": sum(example.tokens for group in scored for example in group.examples),
        "sequence_breaks": sum(
            trajectory.breaks for group in groups for rollout in group.trajectories for trajectory in rollout
        ),
    }


def _components(group: Group, names: Seq[str]) -> np.ndarray:
    """The values (R, K) of the named rewards, NaN where a rollout has none; one given several times is summed."""
    table = np.full((len(group.rollouts), len(names)), np.nan)
    for row, rollout in enumerate(group.rollouts):
        for part in rollout.rewards:
            column = names.index(part.name)
            table[row, column] = np.nan_to_num(table[row, column]) + (part.value or 0.0)
    return table
