"""Tree-GRPO: rollouts that branch from others, compared with their group and with those they branched from."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import msgspec

from agentlightning.config import Positive, PositiveInt
from agentlightning.credit import Branch, BranchPoint, Credit
from agentlightning.training_rows import Group, RolloutRows
from agentlightning_credit.advantages import EPS, standardized
from agentlightning_credit.histories import History, histories
from agentlightning_credit.returns import total_rewards


class TreeConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Each rollout is branched ``count`` times at ``branches`` of its calls, the first left out. ``eps`` is added to
    deviations."""

    branches: PositiveInt = 1
    count: PositiveInt = 1
    eps: Positive = EPS


class Tree(Credit):
    """The rollout against its group, and against those that share a branch point (Tree-GRPO, 2509.21240).

        A = z(R) over the task's rollouts + z(R) over the rollouts that share its last branch point

    Rollouts share a branch point where their first n ≥ 1 calls are the same, token for token, and go on in more than
    one way; the last is the one of most calls. A rollout without one has the first term alone. The branches are
    rollouts of the group, and learned from like others. Needs an agent that does the same again
    (`agentlightning.algorithm.Run.branch`), and ``branches`` · ``count`` more rollouts for each. To take where rollouts
    are long: a branch samples only its tail.
    """

    Config = TreeConfig

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        points = [(group, point) for group in groups for member in group.rollouts for point in self._points(member)]
        found = await branch([point for _, point in points], count=self.config.count) if points else []
        for (group, _), branched in zip(points, found, strict=True):
            group.rollouts += branched

    def assign(self, groups: Sequence[Group]) -> None:
        score = functools.partial(standardized, eps=self.config.eps)
        for group in groups:
            rewards = total_rewards(group)
            advantages = score(rewards)
            for place, sharing in enumerate(_sharing([histories(member) for member in group.rollouts])):
                advantages[place] += score(rewards[sharing])[sharing.index(place)]
            for member, advantage in zip(group.rollouts, advantages, strict=True):
                member.set_advantage(float(advantage))

    def _points(self, member: RolloutRows) -> list[BranchPoint]:
        """Where to branch a rollout: by a digest of its id, so a run that goes on asks for the same."""
        if member.rollout.purpose == "branch":
            return []
        calls = [call.index for _, call in member.transitions[1:]]
        chosen = sorted(calls, key=lambda index: hashlib.blake2b(f"{member.rollout.id}/{index}".encode()).digest())
        return [BranchPoint(member.rollout, index) for index in sorted(chosen[: self.config.branches])]


def _sharing(members: list[list[History]]) -> list[list[int]]:
    """Of each rollout those that share its last branch point, itself among them; itself alone where it has none."""
    through: dict[History, list[int]] = {}
    continuations: dict[History, set[History | None]] = {}
    for place, past in enumerate(members):
        for history, following in zip(past[1:], [*past[2:], None], strict=False):
            through.setdefault(history, []).append(place)
            continuations.setdefault(history, set()).add(following)
    found = []
    for place, past in enumerate(members):
        branched = [history for history in past[1:] if len(continuations[history]) > 1]
        found.append(through[branched[-1]] if branched else [place])
    return found
