"""Replay: the value of a state is what rollouts earn that go on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from agentlightning.config import Positive, PositiveInt
from agentlightning.credit import Branch, BranchPoint, Credit
from agentlightning.training_rows import Group
from agentlightning_credit.advantages import EPS, Scale
from agentlightning_credit.replay_states import State, call_states, gains, places_to_value, rewards_of, started_at_task


class ReplayConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``count`` rollouts go on from each state (k). At most ``points`` states of a rollout are valued, evenly spread;
    None: all. Where one of the tools named in ``once`` has run, nothing goes on from there: it would run again.
    ``scale`` ``group`` divides by the standard deviation + ``eps`` of the group's rewards, with those of its states."""

    count: PositiveInt = 4
    points: PositiveInt | None = None
    once: tuple[str, ...] = ()
    scale: Scale = "none"
    eps: Positive = EPS

    def without_effect(self) -> dict[str, str]:
        """The fields whose value changes nothing, and what would have to be for it to do so."""
        return {"eps": "scale is group"} if self.scale == "none" else {}


class Replay(Credit):
    """What a call changed: the value of the state after it less that of the state before (VinePPO, Kazemnejad et al.
    2024, 2410.01679, by replay in place of forking).

        A_t = V_{t+1} − V_t
        V_t  the mean total reward of k rollouts that repeat the recorded answers up to call t and sample afresh from
             there; V_0 that of the group's own rollouts; after the last call, the rollout's own total reward

    Calls between which no state has a value (``points``, ``once``, or no rollout from it ended well) each get the whole
    difference between the values around them. Step rewards are in the total rewards. Needs an agent that does the same
    again (`agentlightning.algorithm.Run.branch`), and k rollouts for each state. To take where one wrong step spoils a
    long rollout, and calls of the model cost more than those of tools.
    """

    Config = ReplayConfig

    def __init__(self, config: ReplayConfig) -> None:
        super().__init__(config)
        self._rewards: dict[State, list[float]] = {}

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        points: dict[State, BranchPoint] = {}
        for group in groups:
            for member in sorted(started_at_task(group), key=lambda member: member.rollout.id):
                states, calls = call_states(group, member), member.transitions
                for place in places_to_value(member, self.config.points, self.config.once):
                    points.setdefault(states[place], BranchPoint(member.rollout, calls[place][1].index))
        found = await branch(list(points.values()), count=self.config.count) if points else []
        ended = {state: rewards_of(branched) for state, branched in zip(points, found, strict=True)}
        self._rewards = {state: rewards for state, rewards in ended.items() if rewards}

    def assign(self, groups: Sequence[Group]) -> Mapping[str, float]:
        for group in groups:
            divisor, of_task = self._divisor(group), rewards_of(started_at_task(group))
            for member in group.rollouts:
                around = [of_task, *map(self._rewards.get, call_states(group, member)[1:]), rewards_of([member])]
                for (row, call), gain in zip(member.transitions, gains(around), strict=False):
                    row.set_advantage(call, gain / divisor)
        valued = self._rewards.values()
        return {"replay_states": len(valued), "replay_rollouts": sum(map(len, valued))}

    def _divisor(self, group: Group) -> float:
        if self.config.scale == "none":
            return 1.0
        of_states = [reward for (name, _), rewards in self._rewards.items() if name == group.id for reward in rewards]
        rewards = [*rewards_of(started_at_task(group)), *of_states]
        return float(np.std(rewards, ddof=1)) + self.config.eps if len(rewards) > 1 else 1.0
