"""The states of a rollout that replay values, and what its calls gained by their values."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from agentlightning.training_rows import Group, RolloutRows
from agentlightning_credit.histories import histories
from agentlightning_credit.spans import call_spans, tool_name, tool_spans
from agentlightning_credit.states import digest_of

State = tuple[str, object]
"""The state in which a call was made: its group's id, and what is equal where all calls before were the same, and this
one's prompt, token for token."""


def started_at_task(group: Group) -> list[RolloutRows]:
    """The rollouts of a group that began at its task; those that another credit branched did not."""
    return [member for member in group.rollouts if member.rollout.purpose != "branch"] or group.rollouts


def call_states(group: Group, member: RolloutRows) -> list[State]:
    """The state in which each call of a rollout was made, (T,). Where calls that are not in its rows came before it,
    it is equal to that of no other rollout."""
    found: list[State] = []
    for place, ((row, call), past) in enumerate(zip(member.transitions, histories(member), strict=False)):
        seen = (past, digest_of(row.token_ids[: call.start]))
        found.append((group.id, seen if call.index == place else (member.rollout.id, call.index)))
    return found


def places_to_value(member: RolloutRows, points: int | None, once: Collection[str]) -> list[int]:
    """The calls whose states are to be valued, by their place among the rollout's: not the first, none after a tool of
    ``once`` has run, and at most ``points`` of the others, evenly spread."""
    places = list(range(1, len(member.transitions)))
    if once:
        ran = [span.index for span in tool_spans(member) if tool_name(span) in once]
        spans = call_spans(member)
        places = [place for place in places if all(index > spans[place].index for index in ran)]
    if points is None or len(places) <= points:
        return places
    return [places[(len(places) + 1) * number // (points + 1) - 1] for number in range(1, points + 1)]


def rewards_of(members: Sequence[RolloutRows]) -> list[float]:
    """The total reward of each rollout."""
    return [float(member.rollout.total_reward or 0.0) for member in members]


def gains(around: Sequence[Sequence[float] | None]) -> list[float]:
    """What each of T calls changed, (T,), from the rewards by which the T + 1 states around them are valued; None for a
    state without a value, but not for the first and the last."""
    known = [(place, float(np.mean(rewards))) for place, rewards in enumerate(around) if rewards is not None]
    found = [0.0] * (len(around) - 1)
    for (start, before), (end, after) in itertools.pairwise(known):
        found[start:end] = [after - before] * (end - start)
    return found
