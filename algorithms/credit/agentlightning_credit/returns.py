"""Step rewards and outcome → rewards and returns, per call.

T is the number of a rollout's calls, C that of all calls of a group: rollout by rollout in the group's order, and in a
rollout in the order in which they began.
"""

from __future__ import annotations

import numpy as np

from agentlightning.training_rows import Group, RolloutRows


def call_rewards(member: RolloutRows) -> np.ndarray:
    """The reward of each call of a rollout, (T,): what was recorded for it, and with the last one the rollout's
    outcome, where it has one."""
    rewards = np.array([call.reward or 0.0 for _, call in member.transitions], np.float64)
    rewards[-1:] += member.rollout.outcome or 0.0
    return rewards


def discounted_returns(rewards: np.ndarray, gamma: float) -> np.ndarray:
    """G_t = Σ_k γ^k r_{t+k}, from the rewards (T,) of a rollout's calls: (T,)."""
    returns, following = np.zeros(len(rewards)), 0.0
    for place in reversed(range(len(rewards))):
        following = returns[place] = rewards[place] + gamma * following
    return returns


def group_returns(group: Group, gamma: float) -> np.ndarray:
    """The discounted return of every call of a group, (C,)."""
    parts = [discounted_returns(call_rewards(member), gamma) for member in group.rollouts]
    return np.concatenate([*parts, np.zeros(0)])


def total_rewards(group: Group) -> np.ndarray:
    """The total reward of each rollout of a group, (R,)."""
    return np.array([member.rollout.total_reward for member in group.rollouts], np.float64)


def call_counts(group: Group) -> np.ndarray:
    """How many calls each rollout of a group made, (R,); they sum to C."""
    return np.array([len(member.transitions) for member in group.rollouts], np.int64)


def split(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Values of all calls of a group, (C,), rollout by rollout: R arrays (T,)."""
    return np.split(values, np.cumsum(counts)[:-1])[: len(counts)]
