"""``agl runs``: what was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.store.base import CollectionSummary, RunRecord, Store


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
    rows = []
    for run in await store.runs():
        summary = await store.summary(run.id)
        rows.append((run, summary.step, before_after(summary.collections)))
    return rows


def before_after(collections: list[CollectionSummary]) -> str:
    """``0.140 → 0.800`` of the first variant: its first evaluation, and its last where there are several."""
    evaluations = [collection for collection in collections if collection.purpose == "evaluate"]
    if not evaluations:
        return "–"
    variant = evaluations[0].variant
    by_step = {evaluation.step: evaluation.outcome for evaluation in evaluations if evaluation.variant == variant}
    ends = dict.fromkeys((min(by_step), max(by_step)))
    text = " → ".join("–" if (mean := by_step[step]) is None else f"{mean:.3f}" for step in ends)
    return text + (f" ({variant})" if variant else "")
