"""Rewards → advantages, over the rollouts of a group.

The statistic is over rollouts, never over rows: a rollout of three turns counts once. It is taken before
any row is dropped. R is the number of rollouts of a group, K the number of reward components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from agentlightning.config import NonNegative


class AdvantageConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A full choice of advantage.

    ``baseline``: the group's ``mean``, or ``leave_one_out``, the mean of the others (RLOO, Ahmadian et al.
    2024). ``scale``: by the standard deviation of the ``group``, of the ``batch``, or ``none`` (Dr. GRPO).
    ``ddof`` 1 is the sample's deviation, 0 the population's; ``eps`` is added to it.
    ``normalize_then_sum`` scores each reward component within its group, adds them by weight and whitens
    the sum over the batch, in place of all of the above but ``ddof`` and ``eps``.
    """

    baseline: Literal["mean", "leave_one_out"] = "mean"
    scale: Literal["group", "batch", "none"] = "group"
    ddof: Literal[0, 1] = 1
    eps: NonNegative = 1e-4
    normalize_then_sum: bool = False

    def without_effect(self) -> dict[str, str]:
        """The fields whose value changes nothing of this advantage, and what would have to be for it to do so."""
        if self.normalize_then_sum:
            return dict.fromkeys(("baseline", "scale"), "normalize_then_sum is false")
        return dict.fromkeys(("ddof", "eps"), "scale is group or batch") if self.scale == "none" else {}


def advantages(rewards: Sequence[np.ndarray], config: AdvantageConfig) -> list[np.ndarray]:
    """The advantage of every rollout, from its group's rewards: one array (R,) per group.

    A group of one, and one whose rewards are all alike, gives exactly 0.
    """
    groups = [np.asarray(group, np.float64) for group in rewards]
    batch = _deviation(np.concatenate(groups), config.ddof) if groups and config.scale == "batch" else 0.0
    return [_group_advantages(group, config, batch) for group in groups]


def advantages_by_component(
    components: Sequence[np.ndarray], weights: np.ndarray, config: AdvantageConfig
) -> list[np.ndarray]:
    """As `advantages` with ``normalize_then_sum``: ``components`` (R, K) per group, ``weights`` (K,).

    A component that a rollout does not have is NaN there, and left out of its group's statistic.
    """
    sums = [np.nansum(_standardize(np.asarray(group, np.float64), config) * weights, axis=1) for group in components]
    if not sums:
        return []
    whole = np.concatenate(sums)
    mean, deviation = whole.mean(), _deviation(whole, config.ddof)
    flat = [bool(np.all(_spread(group) == 0)) for group in components]
    return [
        np.zeros(len(group)) if without_spread else (group - mean) / (deviation + config.eps)
        for group, without_spread in zip(sums, flat, strict=True)
    ]


def _group_advantages(rewards: np.ndarray, config: AdvantageConfig, batch_deviation: float) -> np.ndarray:
    count = len(rewards)
    if count < 2 or np.ptp(rewards) == 0:
        return np.zeros(count)
    centred: np.ndarray = rewards - rewards.mean()
    if config.baseline == "leave_one_out":
        centred = centred * count / (count - 1)
    if config.scale == "none":
        return centred
    deviation = batch_deviation if config.scale == "batch" else _deviation(rewards, config.ddof)
    return centred / (deviation + config.eps)


def _deviation(values: np.ndarray, ddof: int) -> float:
    return float(values.std(ddof=ddof)) if len(values) > ddof else 0.0


def _spread(components: np.ndarray) -> np.ndarray:
    known = ~np.isnan(components)
    highest = np.max(components, axis=0, initial=-np.inf, where=known)
    lowest = np.min(components, axis=0, initial=np.inf, where=known)
    return np.where(known.sum(axis=0) > 1, highest - lowest, 0.0)


def _standardize(components: np.ndarray, config: AdvantageConfig) -> np.ndarray:
    known = ~np.isnan(components)
    count = known.sum(axis=0)
    mean = np.where(known, components, 0).sum(axis=0) / np.maximum(count, 1)
    centred = np.where(known, components - mean, np.nan)
    variance = np.nansum(centred**2, axis=0) / np.maximum(count - config.ddof, 1)
    return np.where(_spread(components) == 0, centred * 0, centred / (np.sqrt(variance) + config.eps))
