"""The best of what was recorded of deployed agents: what fine-tuning, and whoever else learns from examples, reads."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from agentlightning.config import Section
from agentlightning.errors import AlgorithmError, ConfigError, StoreError
from agentlightning.formatting import parse_since
from agentlightning.store.base import Recorded, RunRecord, Store

LIVE = "live"
"""The status of a run that deployed agents add to."""

Share = Annotated[float, msgspec.Meta(gt=0, le=1)]


class FromLive(Section):
    """Which recorded rollouts are learned from: those of the live run of this id or name that ended ``since`` (``7d``,
    ``24h``, or a date, ``2026-01-31``), in ``store`` where that is not the run's own; of those that have an outcome,
    the ``top`` share."""

    run: str
    store: str | None = None
    since: str | None = None
    top: Share | None = None


async def best_recorded(store: Store, which: FromLive, *, threshold: float | None) -> list[Recorded]:
    """The recorded rollouts whose outcome, rewards and feedback as they are now, is at least ``threshold`` (None: any),
    or among the ``top``; the best first, of equal ones that with the lower id.

    A rollout that an infrastructure broke, or that nobody gave an outcome, is none. Raises `StoreError` where there is
    no such live run, and `AlgorithmError` where no rollout is good enough.
    """
    run = await find_live_run(store, which.run)
    begin = begin_of(which.since)
    rollouts = [
        rollout
        for rollout in await store.rollouts(run.id, purpose="observe")
        if (rollout.ended_at or rollout.created_at) >= begin
    ]
    scored = [(rollout.outcome, rollout) for rollout in rollouts if rollout.is_scorable]
    ranked = sorted(scored, key=lambda pair: (-(pair[0] or 0.0), pair[1].id))
    if which.top is not None:
        ranked = ranked[: math.ceil(which.top * len(ranked))]
    chosen = [rollout for outcome, rollout in ranked if threshold is None or (outcome or 0.0) >= threshold]
    if not chosen:
        best = f"the best of them has {ranked[0][0]:g}" if ranked else "feedback and rewards give one"
        raise AlgorithmError(
            f"nothing to learn from in live run {run.id}: of {len(rollouts)} rollouts {len(scored)} have an outcome, "
            f"and none is good enough; {best}"
        )
    tasks = await store.tasks(run.id, {rollout.task_id for rollout in chosen})
    return [
        Recorded(task=tasks[rollout.task_id], rollout=rollout, spans=await store.spans(rollout.id))
        for rollout in chosen
    ]


async def find_live_run(store: Store, name: str) -> RunRecord:
    """The live run of an id or a name. Raises `StoreError` where there is none."""
    live = [run for run in await store.runs() if run.status == LIVE]
    found = next((run for run in live if run.id == name), None) or next((run for run in live if run.name == name), None)
    if found is None:
        known = ", ".join(run.id for run in live) or "none: `agl.attach` in a deployed agent makes one"
        raise StoreError(f"there is no live run {name!r} in this store; there is {known}")
    return found


def begin_of(since: str | None) -> float:
    """What ``since`` says, in seconds since the epoch. Raises `ConfigError`."""
    try:
        return 0.0 if since is None else parse_since(since)
    except ValueError as error:
        raise ConfigError(f"since: {error}") from None
