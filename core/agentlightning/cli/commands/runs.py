"""``agl runs``: what was trained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.options import console, look, store_option

if TYPE_CHECKING:
    from agentlightning.algorithm import Evaluation
    from agentlightning.store.base import RunRecord, Store

STATUS_STYLES = {
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "queued": "dim",
}


@click.command()
@store_option
def runs(url: str) -> None:
    """List the runs of a store, with their reward before and after."""
    from rich.table import Table
    from rich.text import Text

    rows = look(url, _rows)
    if not rows:
        click.echo(f"no runs in {url}")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("id", "name", "algorithm", "status", "steps", "reward", "started", "duration"):
        table.add_column(
            heading, justify="right" if heading in ("steps", "duration") else "left", no_wrap=heading == "id"
        )
    for run, steps, reward in rows:
        table.add_row(
            run.id,
            Text(run.name),
            run.algorithm,
            Text(run.status, style=STATUS_STYLES[run.status]),
            str(steps) if steps else "–",
            reward,
            when(run.created_at),
            lasted(run),
        )
    console().print(table)


async def _rows(store: Store) -> list[tuple[RunRecord, int, str]]:
    from agentlightning.report import evaluations_of

    rows = []
    for run in await store.runs():
        steps = max((metric.step for metric in await store.metrics(run.id)), default=0)
        rows.append((run, steps, before_after(evaluations_of(await store.rollouts(run.id), {}))))
    return rows


def before_after(evaluations: list[Evaluation]) -> str:
    """``0.140 → 0.800`` of the first variant; what was not evaluated is left open."""
    from agentlightning.report import ends

    if not evaluations:
        return "–"
    variant = evaluations[0].variant
    found = ends([evaluation for evaluation in evaluations if evaluation.variant == variant])
    before, after = ("…" if one is None or one.mean is None else f"{one.mean:.3f}" for one in found)
    return f"{before} → {after}" + (f" ({variant})" if variant else "")


def when(seconds: float | None) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "–"


def lasted(run: RunRecord) -> str:
    """How long a run took."""
    from agentlightning.formatting import format_duration

    return format_duration(run.ended_at - run.created_at) if run.ended_at else "–"
