"""A canary: a share of a deployed agent's runs that are given something new, compared with the others as they end.

Each run is drawn for one or the other by its id (`agentlightning.promotion.production.arm_of`), so the two differ in
nothing else. Outcomes are compared in the order in which they became known, failures in that in which runs ended, with
a test that may be looked at as often as one likes (`agentlightning.betting`). Of equal resources a share ``alpha`` is
rolled back at most, half of that for outcomes and half for failures, and a share ``alpha`` is called better at most,
however long one looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from agentlightning.betting import block_differences, p_value
from agentlightning.formatting import format_p
from agentlightning.promotion.production import Arm, collection_of, conclude, going_canary
from agentlightning.records import Record, Rollout
from agentlightning.store.base import Store
from agentlightning.store.promotions import Promotion

ARMS: tuple[Arm, Arm] = ("canary", "control")


class ArmCounts(Record, kw_only=True):
    """What the runs of one arm came to: how many ended, failed, and have an outcome, and the mean of those."""

    ended: int = 0
    failed: int = 0
    scored: int = 0
    outcome: float | None = None

    def __str__(self) -> str:
        """``0.61 of 120, 3 of 124 failed``."""
        outcome = f"{self.outcome:.3f} of {self.scored}, " if self.outcome is not None else ""
        return f"{outcome}{self.failed} of {self.ended} failed"


class CanaryLook(Record, kw_only=True):
    """A look at a canary. Each p bounds the probability of such evidence at any look so far, were the two alike:
    that its outcomes are worse, that it fails more often, that its outcomes are better."""

    canary: ArmCounts
    control: ArmCounts
    worse_p: float
    fails_p: float
    better_p: float

    def __str__(self) -> str:
        return f"{self.canary}; without it {self.control}"


async def look(store: Store, canary: Promotion) -> CanaryLook:
    """What a canary's runs, and those that it is compared with, came to so far."""
    found: dict[Arm, list[Rollout]] = {}
    for arm in ARMS:
        found[arm] = await store.rollouts(canary.target, collection=collection_of(canary, arm))
    return compare_arms(canary, found["canary"], found["control"])


def compare_arms(canary: Promotion, runs: Sequence[Rollout], others: Sequence[Rollout]) -> CanaryLook:
    """The same of runs that are given. What was cancelled says nothing; a canary that could not be applied has failed,
    whatever the agent made of it."""
    ended = [(arm, run) for arm, each in (("canary", runs), ("control", others)) for run in each if _counts(run)]
    ended.sort(key=lambda pair: (pair[1].ended_at or 0.0, pair[1].id))
    failed = [run.status == "failed" or _is_unapplied(canary, arm, run) for arm, run in ended]
    known = [
        (max(part.at for part in run.rewards if not part.step), run.id, arm, run.outcome)
        for arm, run in ended
        if run.outcome is not None and not _is_unapplied(canary, arm, run)
    ]
    known.sort()
    low, high = canary.bounds
    outcomes = (np.clip([outcome for *_, outcome in known], low, high) - low) / (high - low)
    more = block_differences(np.array([arm == "canary" for _, _, arm, _ in known], bool), outcomes)
    fails = block_differences(np.array([arm == "canary" for arm, _ in ended], bool), np.array(failed, np.float64))
    counts = {}
    for arm in ARMS:
        values = [outcome for *_, of, outcome in known if of == arm]
        counts[arm] = ArmCounts(
            ended=sum(of == arm for of, _ in ended),
            failed=sum(flag for flag, (of, _) in zip(failed, ended, strict=True) if of == arm),
            scored=len(values),
            outcome=float(np.mean(values)) if values else None,
        )
    return CanaryLook(
        canary=counts["canary"],
        control=counts["control"],
        worse_p=p_value(-more),
        fails_p=p_value(fails),
        better_p=p_value(more),
    )


def decide(canary: Promotion, seen: CanaryLook) -> tuple[Literal["promoted", "rolled_back"], str] | None:
    """What becomes of a canary, and why; None where it goes on."""
    if seen.worse_p <= canary.alpha / 2:
        return "rolled_back", f"its outcomes are worse (p {format_p(seen.worse_p)}): {seen}"
    if seen.fails_p <= canary.alpha / 2:
        return "rolled_back", f"it fails more often (p {format_p(seen.fails_p)}): {seen}"
    if seen.better_p <= canary.alpha:
        return "promoted", f"its outcomes are better (p {format_p(seen.better_p)}): {seen}"
    if seen.canary.ended >= canary.enough:
        return "promoted", f"not found worse in {seen.canary.ended} runs: {seen}"
    return None


async def watch(store: Store, target: str) -> Promotion | None:
    """Looks at the canary of a target, and ends it where it is decided: what it became then. None where it goes on,
    there is none, or somebody else has ended it."""
    canary = going_canary(await store.promotions(target))
    if canary is None:
        return None
    seen = await look(store, canary)
    decision = decide(canary, seen)
    if decision is None:
        return None
    evidence: dict[str, Any] = msgspec.to_builtins(seen)
    return await conclude(store, canary, *decision, {"canary": evidence})


def _counts(run: Rollout) -> bool:
    return run.status in ("succeeded", "failed")


def _is_unapplied(canary: Promotion, arm: str, run: Rollout) -> bool:
    return arm == "canary" and run.resources != canary.digests
