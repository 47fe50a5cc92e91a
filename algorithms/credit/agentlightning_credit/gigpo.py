"""GiGPO: groups of rollouts, and in them groups of calls that start from an equal state."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from agentlightning.config import Fraction, NonNegative, Positive
from agentlightning.training_rows import Group
from agentlightning_credit.advantages import EPS, Scale, by_key, set_advantages, standardized
from agentlightning_credit.peers import StateCredit
from agentlightning_credit.returns import call_counts, group_returns, total_rewards


class GiGPOConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``state`` says when two calls start from the same one. ``omega`` weighs the comparison by state, whose returns
    ``gamma`` discounts. ``episodes_over`` ``calls`` counts a rollout once for each of its calls in the statistic over
    rollouts, as verl-agent does. ``scale`` ``none`` leaves out the divisions by a deviation + ``eps``."""

    state: str = "prompt"
    omega: NonNegative = 1.0
    gamma: Fraction = 0.95
    episodes_over: Literal["rollouts", "calls"] = "rollouts"
    scale: Scale = "group"
    eps: Positive = EPS

    def without_effect(self) -> dict[str, str]:
        """The fields whose value changes nothing, and what would have to be for it to do so."""
        of_states = {} if self.omega else dict.fromkeys(("state", "gamma"), "omega is above 0")
        return of_states | ({"eps": "scale is group"} if self.scale == "none" else {})


class GiGPO(StateCredit):
    """The rollout against its group, and the call against the group's calls from an equal state (Feng et al. 2025,
    2505.10978).

        A = A_E + ω·A_S
        A_E  the total reward, standardized over the rollouts of the group: what `broadcast` gives
        A_S  the discounted return from the call on, standardized over the calls that start from an equal state

    A state seen once gives A_S = 0, and a group of one rollout A_E = 0 (the source gives it its raw reward). Needs
    states that several rollouts of a task come through. To take where they do: games, web pages, a first answer.
    """

    Config = GiGPOConfig

    def assign(self, groups: Sequence[Group]) -> Mapping[str, float] | None:
        compare = functools.partial(standardized, scale=self.config.scale, eps=self.config.eps)
        seen = [self.states(group) if self.config.omega else [] for group in groups]
        for group, states in zip(groups, seen, strict=True):
            rewards, counts = total_rewards(group), call_counts(group)
            over_calls = self.config.episodes_over == "calls"
            values = compare(np.repeat(rewards, counts)) if over_calls else np.repeat(compare(rewards), counts)
            if self.config.omega:
                flat = [state for member in states for state in member]
                values = values + self.config.omega * by_key(flat, group_returns(group, self.config.gamma), compare)
            set_advantages(group, values)
        return self.peer_numbers(seen)
