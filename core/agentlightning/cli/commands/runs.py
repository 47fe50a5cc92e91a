"""``agl runs``: what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.algorithm import Evaluation
    from agentlightning.store.base import RunRecord, Store


@click.command()
@store_option
def runs(url: str) -> None:
    """List the runs of a store, with their reward before and after."""
    from rich.table import Table
    from rich.text import Text

    from agentlightning.cli.record_view import STATUS_STYLES
    from agentlightning.formatting import format_duration, format_time

    rows = read_store(url, _rows)
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
            format_time(run.created_at),
            format_duration(run.ended_at - run.created_at) if run.ended_at else "–",
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
    """``0.140 → 0.800`` of the first variant: its first evaluation, and its last where there are several."""
    from agentlightning.report import ends

    if not evaluations:
        return "–"
    variant = evaluations[0].variant
    before, after = ends([evaluation for evaluation in evaluations if evaluation.variant == variant])
    shown = [before] if after is None else [before, after]
    text = " → ".join("–" if each.mean is None else f"{each.mean:.3f}" for each in shown)
    return text + (f" ({variant})" if variant else "")
