"""What the rollouts of a run say about each signal, and the weights that follow from it. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from agentlightning.records import Record, Rollout, Span
from agentlightning.report import bootstrap_interval
from agentlightning_intermediate.signals import SIGNALS, Occurrence, SignalOptions, occurrences
from agentlightning_intermediate.statistics import contrasts, differences, holm, permutation_p
from agentlightning_intermediate.trace import Trace, answer_text

LEAST_GROUPS = 5
"""In how many groups a signal must tell rollouts apart before it is tested."""
LEAST_WEIGHT = 0.01


class Sighting(Record, kw_only=True):
    """What was seen in one rollout: its group, its outcome, how often each signal occurred (``signals``), how often
    with a call of the model after it (``followed``), and counts that are no signal."""

    group: str
    outcome: float
    signals: dict[str, int]
    followed: dict[str, int]
    counts: dict[str, int]


class Evidence(Record, kw_only=True):
    """What the rollouts say about one signal: ``occurrences`` in ``rollouts`` of them, ``followed`` by a call of the
    model so many times; and in ``groups`` groups some rollouts have it and others have not.

    ``effect`` is the mean over those groups of the outcome with it less that without; ``low`` and ``high`` bound it at
    95 % confidence; ``p`` is two-sided and corrected for all that were tested. None where there is too little.
    """

    signal: str
    occurrences: int
    followed: int
    rollouts: int
    groups: int
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


class CountComparison(Record, kw_only=True):
    """The mean of a count in the rollouts that were better than their group's mean, and in the others of the group,
    over ``groups`` groups whose outcomes differ."""

    name: str
    groups: int
    better: float
    others: float


def signals_looked_for() -> list[str]:
    """The signals that can be found here: without sqlglot nobody reads SQL."""
    return [name for name in SIGNALS if name != "sql_invalid" or find_spec("sqlglot") is not None]


def sighting(rollout: Rollout, spans: Sequence[Span], names: Iterable[str]) -> Sighting:
    """What is seen in a rollout that can be scored."""
    trace, options = Trace(rollout, spans), SignalOptions()
    found = {name: occurrences(name, trace, options) for name in names}
    return Sighting(
        group=rollout.group_id,
        outcome=float(rollout.outcome or 0.0),
        signals={name: len(of_name) for name, of_name in found.items()},
        followed={name: sum(_is_followed(one, trace) for one in of_name) for name, of_name in found.items()},
        counts={
            "model calls": len(trace.answers),
            "tool calls": len(trace.of_kind("tool")),
            "characters of answers": sum(len(answer_text(answer.generation)) for answer in trace.answers),
        },
    )


def evidence(sightings: Sequence[Sighting], names: Sequence[str]) -> list[Evidence]:
    """What the rollouts say about each signal, by name."""
    groups, outcomes = _groups_and_outcomes(sightings)
    present = np.array([[seen.signals[name] > 0 for name in names] for seen in sightings], np.bool_)
    present = present.reshape(len(sightings), len(names))
    found = []
    for place, name in enumerate(names):
        within = differences(present[:, place], outcomes, groups)
        one = Evidence(
            signal=name,
            occurrences=sum(seen.signals[name] for seen in sightings),
            followed=sum(seen.followed[name] for seen in sightings),
            rollouts=int(present[:, place].sum()),
            groups=len(within),
            effect=float(within.mean()) if len(within) else None,
        )
        if len(within) >= LEAST_GROUPS:
            one.low, one.high = bootstrap_interval(within)
        found.append(one)
    tested = [place for place, one in enumerate(found) if one.low is not None]
    p = permutation_p(contrasts(present[:, tested], groups), outcomes, groups) if tested else np.empty(0)
    for place, corrected in zip(tested, holm(p.tolist()), strict=True):
        found[place].p = corrected
    return found


def compare_counts(sightings: Sequence[Sighting]) -> list[CountComparison]:
    """The counts that are no signal, in the better rollouts of a group and in the others."""
    groups, outcomes = _groups_and_outcomes(sightings)
    members = [groups == group for group in np.unique(groups)]
    members = [member for member in members if np.ptp(outcomes[member]) > 0]
    found = []
    for name in sightings[0].counts if members else ():
        counts = np.array([seen.counts[name] for seen in sightings], np.float64)
        pairs = []
        for member in members:
            is_better = member & (outcomes > outcomes[member].mean())
            pairs.append((counts[is_better].mean(), counts[member & ~is_better].mean()))
        better, others = np.mean(pairs, axis=0)
        found.append(CountComparison(name=name, groups=len(members), better=float(better), others=float(others)))
    return found


def goes_with(found: Iterable[Evidence], alpha: float, *, success: bool) -> list[Evidence]:
    """The signals that go with success, or with failure, at the level ``alpha``."""
    sure = [one for one in found if one.p is not None and one.p < alpha]
    return [one for one in sure if one.effect and (one.effect > 0) is success]


def suggested_reward(failing: Sequence[Evidence]) -> dict[str, Any] | None:
    """The entry of a config's ``reward`` that follows from the signals that go with failure: the effect of each is the
    potential of the states in which it has occurred (the best potential is the value of the state, Ng, Harada, Russell
    1999, section 3). None where a potential would be of none of them: nothing ever follows."""
    weights = {one.signal: min(round(one.effect, 2), -LEAST_WEIGHT) for one in failing if one.effect and one.followed}
    if not weights:
        return None
    return {"name": "intermediate", "config": {"signals": weights, "shaping": "potential", "most": 1}}


def _is_followed(one: Occurrence, trace: Trace) -> bool:
    return any(one.is_before(answer) for answer in trace.answers)


def _groups_and_outcomes(sightings: Sequence[Sighting]) -> tuple[np.ndarray, np.ndarray]:
    place: dict[str, int] = {}
    groups = np.array([place.setdefault(seen.group, len(place)) for seen in sightings], np.int64)
    return groups, np.array([seen.outcome for seen in sightings], np.float64)
