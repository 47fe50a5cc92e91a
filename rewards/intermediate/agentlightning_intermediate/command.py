"""``agl suggest-rewards``: which signals go with success, and what reward follows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from rich.table import Table

    from agentlightning.store.base import RunRecord, Store
    from agentlightning_intermediate.suggestion import CountComparison, Evidence, Sighting

PAGE = 200
"""Rollouts that are read from the store at once."""


def _level(context: click.Context, option: click.Parameter, value: float) -> float:
    if not 0 < value < 1:  # NaN neither
        raise click.BadParameter("expected a number between 0 and 1", context, option)
    return value


@click.command(name="suggest-rewards")
@click.argument("run")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Look at the last N training rollouts at most.",
)
@click.option(
    "--alpha",
    type=float,
    callback=_level,
    default=0.05,
    show_default=True,
    help="How often chance alone may suggest anything.",
)
@store_option
def suggest_rewards(run: str, limit: int, alpha: float, url: str) -> None:
    """Look for what goes with failure in the training rollouts of a RUN, and suggest a reward.

    Rollouts are compared within their group, so that hard tasks do not mislead. What goes with failure need not be its
    cause: read some of the rollouts (agl show) before you train with it.
    """
    import yaml

    from agentlightning_intermediate.suggestion import (
        compare_counts,
        evidence,
        goes_with,
        signals_looked_for,
        suggested_reward,
    )

    names = signals_looked_for()
    record, sightings, total = read_store(url, lambda store: _look(store, run, limit, names))
    output = console()
    output.print(_about(record, sightings, total), markup=False, soft_wrap=True)
    if not sightings:
        return
    found = evidence(sightings, names)
    output.print()
    output.print(_evidence_table(found))
    counts = compare_counts(sightings)
    if counts:
        output.print()
        output.print(_counts_table(counts))
    failing = goes_with(found, alpha, success=False)
    output.print()
    for line in _conclusions(found, failing, goes_with(found, alpha, success=True), alpha, names):
        output.print(line, markup=False, soft_wrap=True)
    reward = suggested_reward(failing)
    if reward is not None:
        click.echo("\n# beside the rewards that are there, with a credit that looks at steps")
        click.echo(yaml.safe_dump({"reward": [reward]}, sort_keys=False), nl=False)


async def _look(store: Store, run: str, limit: int, names: Sequence[str]) -> tuple[RunRecord, list[Sighting], int]:
    """The run, what was seen in its last training rollouts that can be scored, and how many there are of those."""
    from agentlightning.cli.commands.find import find_run
    from agentlightning_intermediate.suggestion import sighting

    record = await find_run(store, run)
    last: deque[str] = deque(maxlen=limit)
    total, after = 0, None
    while page := await store.rollouts(record.id, purpose="train", after=after, limit=PAGE):
        scorable = [rollout.id for rollout in page if rollout.is_scorable]
        last.extend(scorable)
        total, after = total + len(scorable), page[-1].id
    sightings = []
    for id in last:
        rollout, spans = await store.rollout_with_spans(id)
        if rollout.is_scorable:
            sightings.append(sighting(rollout, spans, names))
    return record, sightings, total


def _about(run: RunRecord, sightings: Sequence[Sighting], total: int) -> str:
    if not sightings:
        return f"{run.id}: there is no training rollout with an outcome"
    seen = f"the last {len(sightings)} of {total}" if total > len(sightings) else str(total)
    groups = len({one.group for one in sightings})
    return f"{run.id}: {seen} training rollouts with an outcome, in {groups} groups"


def _evidence_table(found: Sequence[Evidence]) -> Table:
    from agentlightning.cli.tables import plain_table
    from agentlightning.formatting import format_p

    right = ("count", "rollouts", "groups", "effect", "95 % interval", "p")
    table = plain_table(
        "Outcome with a signal, less that without, in rollouts of the same group", "signal", *right, right=right
    )
    for one in found:
        table.add_row(
            one.signal,
            str(one.occurrences),
            str(one.rollouts),
            str(one.groups),
            "–" if one.effect is None else f"{one.effect:+.3f}",
            "–" if one.low is None or one.high is None else f"{one.low:+.3f} … {one.high:+.3f}",
            "–" if one.p is None else format_p(one.p),
        )
    return table


def _counts_table(counts: Sequence[CountComparison]) -> Table:
    from agentlightning.cli.tables import plain_table

    right = ("groups", "better", "others")
    table = plain_table(
        "What is no signal, in the better rollouts of a group and in the others", "mean of", *right, right=right
    )
    for one in counts:
        table.add_row(one.name, str(one.groups), f"{one.better:.2f}", f"{one.others:.2f}")
    return table


def _conclusions(
    found: Sequence[Evidence], failing: Sequence[Evidence], good: Sequence[Evidence], alpha: float, names: Sequence[str]
) -> list[str]:
    from agentlightning_intermediate.signals import SIGNALS
    from agentlightning_intermediate.suggestion import LEAST_GROUPS

    lines = []
    tested = sum(one.p is not None for one in found)
    if not tested:
        lines.append(
            f"Too few rollouts: no signal tells those of a group apart in {LEAST_GROUPS} groups or more, "
            "so none was tested."
        )
    elif not failing and not good:
        lines.append(f"No signal goes with failure or with success (p < {alpha:g}, corrected for {tested} tests).")
    if failing:
        lines.append(f"With failure go: {', '.join(one.signal for one in failing)}.")
    last = [one.signal for one in failing if not one.followed]
    if last:
        lines.append(
            f"Only at the end of rollouts, where a potential is 0, came: {', '.join(last)}. shaping: bonus counts it, "
            "and may change which policy is the best."
        )
    if good:
        lines.append(f"With success go: {', '.join(one.signal for one in good)}. Nothing is suggested for that.")
    unread = [name for name in SIGNALS if name not in names]
    if unread:
        lines.append(f"Not looked for, without sqlglot: {', '.join(unread)}.")
    return lines
