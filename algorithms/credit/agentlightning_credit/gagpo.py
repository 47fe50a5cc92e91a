"""GAGPO: generalized advantages, whose value function is the group's mean return at each index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from agentlightning.config import Fraction, Positive
from agentlightning.credit import Credit
from agentlightning.training_rows import Group
from agentlightning_credit.advantages import EPS, by_key, set_advantages, standardized
from agentlightning_credit.returns import (
    call_counts,
    call_rewards,
    discounted_returns,
    group_returns,
    split,
    total_rewards,
)


class GAGPOConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``gamma`` discounts returns and values, ``gae_lambda`` what later calls say of one. ``index_from`` says
    how calls are numbered to be compared: from the ``start``, or from the ``end``. ``eps`` is added to a deviation."""

    gamma: Fraction = 0.9
    gae_lambda: Fraction = 0.8
    index_from: Literal["start", "end"] = "start"
    eps: Positive = EPS


class GAGPO(Credit):
    """The rollout against its group, and generalized advantages over its calls (2605.13217).

        A_t = (z(R) + GAE_t) / 2,  GAE_t = Σ_k (γλ)^k δ_{t+k},  δ_t = r_t + γ V_{t+1} − V_t
        V_t the mean of G_t over the group's calls of the same index; 0 after the last call

    z is over the rollouts of the group. Needs no equal states: to take where what tools and people say is never twice
    the same. From the ``end`` compares last calls with last calls where rollouts differ in length.
    """

    Config = GAGPOConfig

    def assign(self, groups: Sequence[Group]) -> None:
        gamma, decay = self.config.gamma, self.config.gamma * self.config.gae_lambda
        for group in groups:
            counts = call_counts(group)
            from_end = self.config.index_from == "end"
            index = [place - count * from_end for count in counts for place in range(count)]
            values = by_key(index, group_returns(group, gamma), np.mean)
            parts = []
            for member, value in zip(group.rollouts, split(values, counts), strict=True):
                following = np.append(value[1:], 0.0)[: len(value)]
                errors = call_rewards(member) + gamma * following - value
                parts.append(discounted_returns(errors, decay))
            rollouts = np.repeat(standardized(total_rewards(group), eps=self.config.eps), counts)
            set_advantages(group, (rollouts + np.concatenate([*parts, np.zeros(0)])) / 2)
