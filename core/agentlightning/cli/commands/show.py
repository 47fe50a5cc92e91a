"""``agl show``: one run, or one rollout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agentlightning.cli.commands.options import console, look, store_option

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from agentlightning.algorithm import Evaluation
    from agentlightning.records import AnyResource, Rollout
    from agentlightning.store.base import Metric, RunRecord, Store

LATEST_STEPS = 6
LATEST_ROLLOUTS = 10


@click.command()
@click.argument("id")
@click.option("--tokens", is_flag=True, help="Show the token ids of a rollout's model calls.")
@store_option
def show(id: str, tokens: bool, url: str) -> None:
    """Show a run or a rollout; the beginning of its ID is enough."""
    from rich.padding import Padding

    from agentlightning.cli.commands.find import find_record
    from agentlightning.store.base import RunRecord

    async def parts(store: Store) -> list[RenderableType]:
        found = await find_record(store, id)
        return await _run(store, found) if isinstance(found, RunRecord) else await _rollout(store, found, tokens)

    output = console()
    for part in look(url, parts):
        output.print(Padding(part, (0, 0, 1, 0), expand=False))


async def _rollout(store: Store, rollout: Rollout, tokens: bool) -> list[RenderableType]:
    from agentlightning.cli.tree import rollout_summary, rollout_tree

    tasks = await store.tasks(rollout.run_id, [rollout.task_id])
    spans = await store.spans(rollout.id)
    summary = rollout_summary(rollout, tasks.get(rollout.task_id))
    return [_facts(summary), rollout_tree(rollout, spans, tokens=tokens)]


async def _run(store: Store, run: RunRecord) -> list[RenderableType]:
    from rich.text import Text

    from agentlightning.cli.comparison_table import render
    from agentlightning.diagnostics import findings
    from agentlightning.report import compare_evaluations, evaluations_of

    rollouts = await store.rollouts(run.id)
    evaluations = evaluations_of(rollouts, {})
    comparisons = compare_evaluations(evaluations)
    counted = [rollout for rollout in rollouts if rollout.counts]
    parts: list[RenderableType] = [_facts(_about(run, counted))]
    if comparisons:
        parts.append(render(comparisons))
    elif evaluations:
        parts.append(_evaluations(evaluations))
    resources = await store.resources(run.id)
    if resources:
        parts.append(_resources(resources))
    metrics = await store.metrics(run.id)
    found = findings(metrics, evaluations)
    if found:
        parts.append(Text("\n".join(found), style="yellow"))
    if metrics:
        parts.append(_metrics(metrics))
    failures = _failures(counted)
    if failures is not None:
        parts.append(failures)
    if rollouts:
        parts.append(_latest(rollouts))
    return parts


def _facts(facts: Sequence[tuple[str, RenderableType]]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def _table(title: str, *headings: str, right: Sequence[str] = ()) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def _about(run: RunRecord, rollouts: Sequence[Rollout]) -> list[tuple[str, RenderableType]]:
    import yaml
    from rich.text import Text

    from agentlightning.cli.commands.runs import STATUS_STYLES, lasted, when
    from agentlightning.cli.tree import shown

    statuses = Counter(rollout.status for rollout in rollouts)
    facts: list[tuple[str, RenderableType]] = [
        ("run", Text(run.id, style="bold")),
        ("algorithm", Text(f"{run.algorithm}, seed {run.seed}")),
        ("status", Text(run.status, style=STATUS_STYLES[run.status])),
        ("started", Text(f"{when(run.created_at)}, took {lasted(run)}" if run.ended_at else when(run.created_at))),
        ("rollouts", Text(", ".join(f"{count} {status}" for status, count in statuses.most_common()) or "none")),
    ]
    if run.message:
        facts.insert(3, ("message", shown(run.message)))
    if run.status == "interrupted":
        facts.insert(3, ("message", Text("nobody runs it any more: its process ended without a word")))
    if run.status in ("failed", "cancelled", "interrupted"):
        facts.insert(4, ("go on with", Text(f"agl train CONFIG --resume {run.id}")))
    if run.config:
        facts.append(("config", shown(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True).rstrip())))
    return facts


def _evaluations(evaluations: Sequence[Evaluation]) -> Table:
    table = _table("Evaluations", "step", "variant", "tasks", "mean reward", right=("step", "tasks", "mean reward"))
    for it in evaluations:
        mean = "–" if it.mean is None else f"{it.mean:.3f}"
        table.add_row(str(it.step), it.variant or "–", str(len(it.tasks)), mean)
    return table


def _resources(resources: Sequence[AnyResource]) -> Table:
    from agentlightning.cli.tree import shown
    from agentlightning.records import ModelChoice, Policy, Prompt

    latest = {resource.name: resource for resource in resources}
    versions = Counter(name for name, _ in {(resource.name, resource.version) for resource in resources})
    table = _table(
        "Resources", "name", "kind", "latest version", "versions", "what", right=("latest version", "versions")
    )
    for name, resource in latest.items():
        kind = {Policy: "policy", Prompt: "prompt", ModelChoice: "model choice"}[type(resource)]
        what = resource.template if isinstance(resource, Prompt) else resource.model
        table.add_row(name, kind, str(resource.version), str(versions[name]), shown(what))
    return table


def _metrics(metrics: Sequence[Metric]) -> Table:
    steps = sorted({metric.step for metric in metrics})[-LATEST_STEPS:]
    values = {(metric.name, metric.step): metric.value for metric in metrics}
    headings = [f"step {step}" for step in steps]
    table = _table(
        f"Metrics of the last {len(steps)} steps" if len(steps) > 1 else "Metrics", "", *headings, right=headings
    )
    for name in dict.fromkeys(metric.name for metric in metrics if metric.step in steps):
        row = [values.get((name, step)) for step in steps]
        table.add_row(name, *("–" if value is None else f"{value:.4g}" for value in row))
    return table


def _failures(rollouts: Sequence[Rollout]) -> Table | None:
    from agentlightning.cli.tree import shown

    ended = Counter((it.failure.type, it.failure.fault) for it in rollouts if it.failure is not None)
    retried = Counter((failure.type, failure.fault) for it in rollouts for failure in it.failed_attempts)
    latest = {
        (failure.type, failure.fault): f"{it.id}: {failure.message}"
        for it in rollouts
        for failure in [*it.failed_attempts, *([it.failure] if it.failure is not None else [])]
    }
    if not latest:
        return None
    table = _table(
        "Failures", "type", "fault", "rollouts", "tried again", "the last one", right=("rollouts", "tried again")
    )
    for (type, fault), example in latest.items():
        first_line = example.splitlines()[0][:200]
        table.add_row(type, fault, str(ended[type, fault]), str(retried[type, fault]), shown(first_line))
    return table


def _latest(rollouts: Sequence[Rollout]) -> Table:
    from rich.text import Text

    from agentlightning.cli.commands.runs import STATUS_STYLES
    from agentlightning.formatting import format_duration

    ended = sorted(rollouts, key=lambda rollout: rollout.ended_at or rollout.started_at or 0.0)[-LATEST_ROLLOUTS:]
    table = _table(
        f"Latest rollouts (of {len(rollouts)})",
        *("id", "collection", "task", "status", "outcome", "duration", "failure"),
        right=("outcome", "duration"),
    )
    for it in ended:
        seconds = it.ended_at - it.started_at if it.ended_at and it.started_at else None
        table.add_row(
            it.id,
            it.collection,
            Text(it.task_id),
            Text(it.status, style=STATUS_STYLES[it.status]),
            "–" if it.outcome is None else f"{it.outcome:.3g}",
            "–" if seconds is None else format_duration(seconds),
            it.failure.type if it.failure else "",
        )
    return table
