"""What the steps of an attempt came to, gathered until it ends: each agent's use of each tool or model once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from agentlightning.records import Fault, Rollout, Span
from agentlightning.store.tries import CANCELLED, Columns, TryKind, rollout_failure

MAX_ATTEMPTS = 10_000
"""Attempts that run at once, of those the latest: what lost its worker never ends."""
MAX_USES = 200
"""Agents' uses of tools and models in one attempt; more are not looked at."""
REPEATS_OTHERS = "agent"
"""An agent's turn fails with what failed in it."""


class Use(NamedTuple):
    """Who used what: of a rollout itself nobody, nothing."""

    kind: TryKind
    agent: str | None = None
    used: str | None = None


Failures = dict[str, Fault]
"""By type, whose fault it was."""


class AttemptSteps:
    """Steps of attempts that have not ended."""

    def __init__(self) -> None:
        self._attempts: OrderedDict[tuple[str, int], dict[Use, Failures]] = OrderedDict()

    def add(self, spans: Sequence[tuple[Span, Columns]]) -> None:
        """Keeps spans, each with what it is as a try; those that have not ended are none."""
        for span, step in spans:
            if step.ended_at is None or span.kind == REPEATS_OTHERS:
                continue
            uses = self._attempts.setdefault((span.rollout_id, span.attempt), {})
            use = Use(span.kind, step.agent, step.used)  # type: ignore[arg-type]  # of the kinds that are tries
            if use in uses or len(uses) < MAX_USES:
                failures = uses.setdefault(use, {})
                if span.failure is not None:
                    failures[span.failure.type] = span.failure.fault
        while len(self._attempts) > MAX_ATTEMPTS:
            self._attempts.popitem(last=False)

    def end(self, rollout: Rollout) -> dict[Use, Failures]:
        """What an attempt came to that has ended, the rollout itself included; nothing where it was cancelled."""
        uses = self._attempts.pop((rollout.id, rollout.attempt), {})
        type, fault = failure_of_attempt(rollout)
        if rollout.status == "cancelled" or type == CANCELLED or not rollout.counts:
            return {}
        return {Use("rollout"): {} if type is None else {type: fault or "agent"}, **uses}


def failure_of_attempt(rollout: Rollout) -> tuple[str | None, Fault | None]:
    """The type and fault of the failure of the attempt that has ended, also where it is tried again."""
    if rollout.status == "queued":
        last = rollout.failed_attempts[-1] if rollout.failed_attempts else None
        return (CANCELLED, "agent") if last is None else (last.type, last.fault)
    return rollout_failure(rollout)
