"""A chain of calls whose values are known exactly, and a simulator of rollouts that go on from its middle.

Each call answers 5 or 6, as likely; the outcome is 1 where the second answered 5, else 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from credit.made import Call, member

from agentlightning.credit import BranchPoint
from agentlightning.records import Purpose, Span
from agentlightning.training_rows import Group, RolloutRows

RIGHT, WRONG = 5, 6


def chain(
    name: str,
    answers: Sequence[int],
    outcome: float | None = None,
    *,
    purpose: Purpose = "train",
    spans: Sequence[Span] = (),
) -> RolloutRows:
    """A rollout of these answers, whose prompts hold those before."""
    calls = [Call([1, *answers[:place]], [answer]) for place, answer in enumerate(answers)]
    earned = float(answers[1] == RIGHT) if outcome is None else outcome
    return member(name, calls, earned, purpose=purpose, spans=spans)


def value(answers: Sequence[int]) -> float:
    """What rollouts that begin with these answers earn in the mean."""
    return float(answers[1] == RIGHT) if len(answers) > 1 else 0.5


class Simulator:
    """`agentlightning.credit.Branch`: rollouts of the groups go on with wrong answers, and earn what ``worth`` says of
    their repeated answers; None where none of them ends well."""

    def __init__(self, *groups: Group, worth: Callable[[Sequence[int]], float | None] = value) -> None:
        self.answers = {
            one.rollout.id: [int(row.token_ids[call.start]) for row, call in one.transitions]
            for group in groups
            for one in group.rollouts
        }
        self.worth = worth
        self.asked: list[tuple[str, int]] = []
        self.counts: list[int] = []

    async def __call__(self, points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
        self.asked += [(rollout.id, calls) for rollout, calls in points]
        self.counts.append(count)
        found = []
        for rollout, calls in points:
            repeated = self.answers[rollout.id][:calls]
            earned = self.worth(repeated)
            went_on = [*repeated, *[WRONG] * (len(self.answers[rollout.id]) - calls)]
            names = [f"{rollout.id}@{calls}.{sample}" for sample in range(count)]
            found.append([] if earned is None else [chain(name, went_on, earned, purpose="branch") for name in names])
        return found
