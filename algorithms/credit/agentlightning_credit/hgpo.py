"""HGPO: calls that start from an equal state, weighed by how much of what came before is equal, too."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import msgspec
import numpy as np

from agentlightning.config import Fraction, NonNegative, NonNegativeInt, Positive
from agentlightning.training_rows import Group
from agentlightning_credit.advantages import EPS, by_key, set_advantages, standardized
from agentlightning_credit.peers import StateCredit, States
from agentlightning_credit.returns import group_returns


class HGPOConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``state`` says when two calls start from the same one. Up to ``history`` states before it are compared, too;
    what is compared by k states weighs (k + 1) to the power of ``alpha``. ``gamma`` discounts returns, ``eps`` is added
    to deviations."""

    state: str = "prompt"
    history: NonNegativeInt = 2
    alpha: NonNegative = 1.0
    gamma: Fraction = 0.95
    eps: Positive = EPS


class HGPO(StateCredit):
    """The return from a call on against those of calls that start from an equal state, after equal states before it
    (HGPO, ICLR 2026; its K is ``history``, and these are the numbers of verl-agent's recipe/hgpo).

        a_k  for k = 1 … K+1: G_t standardized (ddof 0) over the calls whose last k states, this one included, are equal
        A    Σ_k w_k a_k / Σ_k w_k,  w_k ∝ (k+1)^α, over those k for which there is another call

    A call for which there is none at any k gets 0. There is no term of the rollout as a whole. Needs states that
    several rollouts of a task come through. To take where an equal state does not say what came before, as with
    ``state: observation``; with ``prompt`` the prompts of most agents hold their whole history, and k changes nothing.
    """

    Config = HGPOConfig

    def assign(self, groups: Sequence[Group]) -> Mapping[str, float]:
        seen = [self.states(group) for group in groups]
        for group, states in zip(groups, seen, strict=True):
            set_advantages(group, self._weighed(states, group_returns(group, self.config.gamma)))
        return self.peer_numbers(seen)

    def _weighed(self, states: States, returns: np.ndarray) -> np.ndarray:
        compare = functools.partial(standardized, eps=self.config.eps, ddof=0)
        total, weight = np.zeros(len(returns)), np.zeros(len(returns))
        for length in range(1, self.config.history + 2):
            last = [_last(member, place, length) for member in states for place in range(len(member))]
            count = Counter(last)
            has_peer = np.array([key is not None and count[key] > 1 for key in last], np.bool_)
            of_length = (length + 1.0) ** self.config.alpha * has_peer
            total += of_length * by_key(last, returns, compare)
            weight += of_length
        return np.divide(total, weight, out=np.zeros(len(returns)), where=weight > 0)


def _last(states: Sequence[Hashable], place: int, length: int) -> Hashable:
    """The last so many states of a rollout at one of its calls; None where there were not so many yet."""
    return tuple(states[place - length + 1 : place + 1]) if place + 1 >= length else None
