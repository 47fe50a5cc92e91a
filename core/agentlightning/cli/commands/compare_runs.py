"""``agl compare-runs``: which of two runs is better, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.common import console, read_store, store_option

if TYPE_CHECKING:
    from agentlightning.algorithm import Evaluation
    from agentlightning.store.base import RunRecord, Store


@click.command(name="compare-runs")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@store_option
def compare_runs(first: str, second: str, url: str) -> None:
    """Compare the last evaluations of two runs, task by task.

    Runs of `agl train`, after training, and of `agl eval`.
    """
    from agentlightning.cli import compare
    from agentlightning.cli.tables import comparisons_table, facts_table

    (one, before), (other, after) = read_store(url, lambda store: _both(store, first, second))
    comparisons = compare.compare_runs(before, after)
    output = console()
    output.print(facts_table([("first", _about(one)), ("second", _about(other))]))
    output.print()
    output.print(comparisons_table(comparisons, title="The same tasks", first="first", second="second"))
    left_out = compare.unshared(before, after)
    if left_out:
        output.print(f"{left_out} tasks that only one of the two was evaluated on are left out", style="yellow")


def _about(run: RunRecord) -> str:
    return f"{run.id}  {run.algorithm}, {run.status}"


async def _both(store: Store, *ids: str) -> list[tuple[RunRecord, list[Evaluation]]]:
    from agentlightning.cli.commands.find import find_run
    from agentlightning.report import evaluations_of

    runs = [await find_run(store, id) for id in ids]
    return [(run, evaluations_of(await store.rollouts(run.id), await store.tasks(run.id))) for run in runs]
