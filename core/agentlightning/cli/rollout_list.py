"""Rollouts of a run, chosen and listed with what went in and what came out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from agentlightning.cli.tables import facts_table
from agentlightning.cli.tree import failure_line, format_value
from agentlightning.errors import ConfigError
from agentlightning.formatting import format_duration
from agentlightning.records import Rollout, Task

MAX_LISTED = 20
MAX_CHARACTERS = 400


def chosen(rollouts: Sequence[Rollout], which: str) -> list[Rollout]:
    """``failed`` ones, those of training ``step=N``, or the ``best``: highest outcome first. Raises `ConfigError`."""
    counted = [rollout for rollout in rollouts if rollout.counts]
    if which == "failed":
        return [rollout for rollout in counted if rollout.status == "failed" or rollout.failure is not None]
    if which == "best":
        scored = [rollout for rollout in counted if rollout.outcome is not None]
        return sorted(scored, key=lambda rollout: -(rollout.outcome or 0.0))
    step = re.fullmatch(r"step=(\d+)", which)
    if step is None:
        raise ConfigError(f"--rollouts {which}: expected failed, best, or step=N")
    return [rollout for rollout in counted if rollout.purpose == "train" and rollout.step == int(step[1])]


def rollouts_list(rollouts: Sequence[Rollout], tasks: Mapping[str, Task]) -> list[RenderableType]:
    """One part for each rollout, the first `MAX_LISTED` of them; then how many more there are."""
    if not rollouts:
        return [Text("no such rollouts")]
    parts = [_rollout(rollout, tasks.get(rollout.task_id)) for rollout in rollouts[:MAX_LISTED]]
    more = len(rollouts) - MAX_LISTED
    return [*parts, Text(f"… and {more} more; `agl export` writes all", style="dim")] if more > 0 else parts


def _rollout(rollout: Rollout, task: Task | None) -> RenderableType:
    outcome = "no outcome" if rollout.outcome is None else f"outcome {rollout.outcome:g}"
    seconds = rollout.ended_at - rollout.started_at if rollout.ended_at and rollout.started_at else None
    took = f", {format_duration(seconds)}" if seconds is not None else ""
    facts: list[tuple[str, RenderableType]] = [
        ("rollout", Text.assemble((rollout.id, "bold"), f"  {rollout.collection}, {rollout.status}, {outcome}{took}")),
        ("task", format_value(rollout.task_id, MAX_CHARACTERS)),
    ]
    if task is not None:
        facts.append(("input", format_value(task.input, MAX_CHARACTERS)))
    facts.append(("output", format_value(rollout.output, MAX_CHARACTERS)))
    if rollout.failure is not None:
        facts.append(("failure", failure_line(rollout.failure)))
    return facts_table(facts)
