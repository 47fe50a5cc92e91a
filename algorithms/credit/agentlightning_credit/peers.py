"""Calls that start from a state in which another rollout of their group was, too."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any

from agentlightning.credit import Credit
from agentlightning.training_rows import Group
from agentlightning_credit.states import load_state

logger = logging.getLogger(__name__)

States = list[list[Hashable]]
"""The state of each call of each rollout of a group."""

FEW = 0.2
"""The share of calls with a peer below which comparing by states says little."""


class StateCredit(Credit):
    """Base of the credits that compare calls which start from an equal state. Their config has an option ``state``
    (`agentlightning_credit.states`)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._state_of = load_state(self.config.state)
        self._warned = False

    def states(self, group: Group) -> States:
        """The state of each call. Raises `AlgorithmError` where it cannot be told."""
        return [self._state_of(member) for member in group.rollouts]

    def peer_numbers(self, groups: Sequence[States]) -> dict[str, float]:
        """``credit_calls_with_peer`` for the log: the share of the calls whose state was another rollout's of the
        group, too. Where it is small, a warning says so once."""
        calls = sum(len(member) for group in groups for member in group)
        if not calls:
            return {}
        share = sum(_with_peer(group) for group in groups) / calls
        if share < FEW and not self._warned:
            self._warned = True
            logger.warning(
                "only %.0f %% of the calls start from a state that another rollout of their task was in "
                "(algorithm.credit.state: %s), and there is nothing to compare the others with: choose a state that "
                "more calls have in common, or the credit gagpo, which needs no equal states",
                100 * share,
                self.config.state,
            )
        return {"credit_calls_with_peer": share}


def _with_peer(group: States) -> int:
    """How many calls of a group have a state that another of its rollouts was in."""
    visitors: dict[Hashable, set[int]] = {}
    for place, member in enumerate(group):
        for state in member:
            visitors.setdefault(state, set()).add(place)
    return sum(len(visitors[state]) > 1 for member in group for state in member)
