"""Signals → step rewards: as the differences of a potential, or as they are. Pure functions.

A step is a call of a policy, t = 0 … T − 1; s_t is what had happened before it. With a potential Φ the reward of step t
is F_t = γ Φ(s_{t+1}) − Φ(s_t), with Φ = 0 at the beginning and at the end. Discounted by γ^t they add up to nothing
whatever the agent does, and so does what remains of them from any state but for −Φ of that state: no policy becomes
better than another by it (Ng, Harada, Russell 1999, Policy invariance under reward transformations, theorem 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from agentlightning.records import Reward, Span
from agentlightning_intermediate.signals import Occurrence
from agentlightning_intermediate.trace import Trace, ended_at

GRID = 2.0**-30
"""Potentials are multiples of it: their differences then add up to 0 exactly, in any order, and rollouts of the same
outcome have the same total."""
PROGRESS = "progress"
SHOWN_REASONS = 4


def shaped(before: float, after: float, gamma: float) -> float:
    """F = γ Φ(s') − Φ(s), of the potentials ``before`` and ``after`` a step."""
    return gamma * after - before


def on_grid(potential: float) -> float:
    """The multiple of `GRID` that is nearest."""
    return round(potential / GRID) * GRID


def chains(trace: Trace, *, per_agent: bool = False) -> list[list[Span]]:
    """The calls that are learned from, of each policy (and of each of its agents) in the order in which they began:
    those with exact tokens. A rollout without any (a model of somebody else's) has one chain, of all its answers:
    nothing is learned from it, and its rewards are to be seen."""
    found: dict[tuple[str, str | None], list[Span]] = {}
    for answer in trace.answers:
        generation = answer.generation
        if generation is not None and generation.policy is not None and generation.exact_tokens is not None:
            found.setdefault((generation.policy, answer.agent if per_agent else None), []).append(answer)
    if found:
        return list(found.values())
    return [trace.answers] if trace.answers else []


def potential_of(occurrences: Sequence[Occurrence], chain: Sequence[Span], weight: float, most: int) -> list[float]:
    """Φ(s_t) before each call of a chain: ``weight`` for each occurrence, up to ``most``, that an earlier call of the
    chain caused and that was known when the call began."""
    own = _of_chain(occurrences, chain)
    counts = [sum(one.is_before(call) for one in own) for call in chain]
    return [on_grid(weight * min(count, most)) for count in counts]


def potential_rewards(
    name: str, chain: Sequence[Span], potential: Sequence[float], gamma: float, occurrences: Sequence[Occurrence] = ()
) -> list[Reward]:
    """F_t of each call of a chain where it is not zero, from the potential (T,) before each call. What happened
    between is in the reason, where ``occurrences`` say so."""
    own = _of_chain(occurrences, chain)
    rewards = []
    for place, (before, after) in enumerate(pairwise([*potential, 0.0])):
        call, value = chain[place], shaped(before, after, gamma)
        if value:
            is_last = place == len(chain) - 1
            what = "the end" if is_last else _what_happened(own, call, chain[place + 1])
            reason = f"{what} (potential {before:.3g} → {after:.3g})"
            rewards.append(Reward(name=name, value=value, span_id=call.id, at=ended_at(call), reason=reason))
    return rewards


def bonus_rewards(
    name: str, chain: Sequence[Span], occurrences: Sequence[Occurrence], weight: float, most: int
) -> list[Reward]:
    """``weight`` for each of the first ``most`` occurrences that the calls of a chain caused, one reward a call."""
    counted = _of_chain(occurrences, chain)[:most]
    rewards = []
    for call in chain:
        reasons = [one.reason for one in counted if one.answer.id == call.id]
        if reasons:
            value, reason = weight * len(reasons), _joined(reasons)
            rewards.append(Reward(name=name, value=value, span_id=call.id, at=ended_at(call), reason=reason))
    return rewards


def _of_chain(occurrences: Sequence[Occurrence], chain: Sequence[Span]) -> list[Occurrence]:
    ids = {call.id for call in chain}
    return [one for one in occurrences if one.answer.id in ids]


def _what_happened(occurrences: Sequence[Occurrence], call: Span, following: Span) -> str:
    new = [one.reason for one in occurrences if one.is_before(following) and not one.is_before(call)]
    return _joined(new) or "nothing new"


def _joined(reasons: Sequence[str]) -> str:
    more = [f"and {len(reasons) - SHOWN_REASONS} more"] if len(reasons) > SHOWN_REASONS else []
    return "; ".join([*reasons[:SHOWN_REASONS], *more])
