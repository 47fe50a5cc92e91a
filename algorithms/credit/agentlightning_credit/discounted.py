"""Discounted returns, compared by index."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from agentlightning.config import Fraction, Positive
from agentlightning.credit import Credit
from agentlightning.training_rows import Group
from agentlightning_credit.advantages import EPS, Scale, by_key, set_advantages, standardized
from agentlightning_credit.returns import call_counts, group_returns


class DiscountedConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``gamma`` discounts what comes later, by call. ``scale`` ``none`` leaves out the division by the deviation +
    ``eps``."""

    gamma: Fraction = 0.95
    scale: Scale = "group"
    eps: Positive = EPS

    def without_effect(self) -> dict[str, str]:
        """The fields whose value changes nothing, and what would have to be for it to do so."""
        return {"eps": "scale is group"} if self.scale == "none" else {}


class Discounted(Credit):
    """The return from a call on, compared with those of the group's calls of the same index.

        G_t = Σ_k γ^k r_{t+k};  A_t = (G_t − mean) / (std + eps) over the group's calls number t

    r_t is the step reward of call t, with the outcome in the last one. Needs nothing beyond the rewards. To take where
    step rewards come early and late, and the agent does much the same at the same index in every rollout. A call at an
    index that no other rollout reached gets 0.
    """

    Config = DiscountedConfig

    def assign(self, groups: Sequence[Group]) -> None:
        compare = functools.partial(standardized, scale=self.config.scale, eps=self.config.eps)
        for group in groups:
            index = [place for count in call_counts(group) for place in range(count)]
            set_advantages(group, by_key(index, group_returns(group, self.config.gamma), compare))
