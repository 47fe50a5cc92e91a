"""What is said when a run has ended: its results, or what one that has stopped leaves behind."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentlightning.cli.commands.common import console, read_store, store_hint

if TYPE_CHECKING:
    from agentlightning.store.base import RunRecord, Store
    from agentlightning.trainer import FitResult


def print_result(result: FitResult, url: str) -> None:
    """Before and after, findings, and where everything is; draws the curve of a run in the store at ``url``."""
    from rich.text import Text

    from agentlightning.cli.curve import WITHOUT_MATPLOTLIB, can_draw
    from agentlightning.cli.tables import comparisons_table

    output = console()
    if result.comparisons:
        output.print(comparisons_table(result.comparisons))
    for finding in result.findings:
        output.print(Text(finding, style="yellow"), soft_wrap=not output.is_terminal)
    facts = dict(result.results)
    curve = read_store(url, partial(_draw_curve, result))
    if curve is not None:
        facts["curve"] = curve
    facts["run"] = f"{result.run_id}  (agl show {result.run_id}{store_hint(url)})"
    width = max(map(len, facts))
    for name, value in facts.items():
        output.print(Text(f"{name:{width}}  {value}"), soft_wrap=True)
    if curve is None and not can_draw():
        output.print(WITHOUT_MATPLOTLIB, soft_wrap=True)


def what_is_saved(run: RunRecord, url: str, go_on: str) -> str:
    """What a run that has stopped leaves behind, and ``go_on``, which goes on with it where there is something to go on
    from. Raises `AgentLightningError` where the store at ``url`` cannot be read."""

    from agentlightning.diagnostics import findings

    async def ask(store: Store) -> tuple[int, int | None, list[str]]:
        rollouts = await store.rollouts(run.id)
        checkpoint = await store.last_checkpoint(run.id)
        step = checkpoint.step if checkpoint is not None else None
        return (
            sum(rollout.finished for rollout in rollouts if rollout.counts),
            step,
            findings(await store.metrics(run.id)),
        )

    finished, step, found = read_store(url, ask)
    if not finished and step is None:
        return "\n".join([*found, f"run {run.id} has stopped before a rollout ended: there is nothing to go on from"])
    point = f"the checkpoint of step {step}" if step is not None else "no checkpoint yet"
    saved = f"run {run.id} has stopped; saved: {finished} finished rollouts, {point}"
    return "\n".join([*found, saved, f"go on with: {go_on}"])


async def _draw_curve(result: FitResult, store: Store) -> str | None:
    from agentlightning.cli.curve import draw_curve

    run = await store.run(result.run_id)
    return await draw_curve(store, run, Path(result.directory) / "curve.png") if run is not None else None
