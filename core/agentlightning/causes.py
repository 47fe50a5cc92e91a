"""Why rollouts came to nothing, in words: causes by type, with class, message and line. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from agentlightning.records import Failure, Rollout
from agentlightning.training_rows import Group

SHOWN_CAUSES = 5
SHOWN_CHARACTERS = 300
OWN_FAULT = "agent_error"


def explain_rollouts(rollouts: Iterable[Rollout]) -> str:
    """What became of rollouts that nothing can be learned from, the most frequent cause first:

    ``8 of 8 rollouts failed: 6 × ValueError: no number (agent.py:12), 2 × timeout: the agent took …``
    """
    rollouts = list(rollouts)
    failures = [rollout.failure for rollout in rollouts if rollout.failure is not None]
    unscored = [rollout for rollout in rollouts if rollout.failure is None and rollout.outcome is None]
    parts = []
    if failures:
        parts.append(f"{len(failures)} of {len(rollouts)} rollouts failed: {explain_failures(failures)}")
    if unscored:
        reasons = _counted((_why_unscored(rollout), _why_unscored(rollout)) for rollout in unscored)
        parts.append(f"{len(unscored)} of {len(rollouts)} could not be scored: {reasons}")
    return "; ".join(parts) or f"{len(rollouts)} rollouts, none of which failed"


def explain_groups(groups: Iterable[Group]) -> str:
    """Why there is nothing to train on in groups none of whose rollouts holds a token of the policy's."""
    groups = list(groups)
    rollouts = [rollout for group in groups for rollout in group.all_rollouts]
    good = sum(member.rollout.failure is None for group in groups for member in group.rollouts)
    unanswered = f"in {good} of {len(rollouts)} rollouts no call of the agents was answered by the policy"
    if good == len(rollouts):
        return unanswered
    return "; ".join([explain_rollouts(rollouts), *([unanswered] if good else [])])


def explain_failures(failures: Iterable[Failure]) -> str:
    """``6 × ValueError: no number (agent.py:12), 2 × timeout: …``; of failures that came from the same place, the
    first one's message."""
    return _counted(((failure.type, failure.exception, failure.where), explain(failure)) for failure in failures)


def explain(failure: Failure) -> str:
    """One failure: its type or class, its message, and where in the user's code it came from."""
    kind = failure.exception.rpartition(".")[2] if failure.exception is not None else None
    names = [name for name in (failure.type if failure.type != OWN_FAULT else None, kind) if name is not None]
    message = " ".join(failure.message.split())
    if len(message) > SHOWN_CHARACTERS:
        message = f"{message[:SHOWN_CHARACTERS]} …"
    text = ": ".join(dict.fromkeys([*(names or [OWN_FAULT]), *([message] if message else [])]))
    return f"{text} ({failure.where})" if failure.where is not None else text


def _why_unscored(rollout: Rollout) -> str:
    reasons = [f"{part.name}: {part.reason or 'gave no value'}" for part in rollout.rewards if part.value is None]
    if reasons:
        return ", ".join(reasons)
    return "it was given rewards of steps, and none of the whole" if rollout.rewards else "it was given no reward"


def _counted(causes: Iterable[tuple[object, str]]) -> str:
    counts: dict[object, tuple[int, str]] = {}
    for key, text in causes:
        count, first = counts.get(key, (0, text))
        counts[key] = count + 1, first
    ordered = sorted(counts.values(), key=lambda entry: -entry[0])
    shown = [f"{count} × {text}" for count, text in ordered[:SHOWN_CAUSES]]
    rest = sum(count for count, _ in ordered[SHOWN_CAUSES:])
    return ", ".join([*shown, f"{rest} × others"] if rest else shown)
