"""A run of the store, or a rollout, as what a terminal shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import yaml
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from agentlightning.cli.commands.common import store_hint
from agentlightning.cli.commands.find import find_record
from agentlightning.cli.levers_table import levers_table
from agentlightning.cli.rollout_list import chosen, rollouts_list
from agentlightning.cli.tables import comparisons_table, evaluations_table, facts_table, plain_table
from agentlightning.cli.tree import format_value, rollout_summary, rollout_tree
from agentlightning.defaults import DIRECTORY
from agentlightning.diagnostics import findings
from agentlightning.formatting import format_duration, format_time
from agentlightning.levers.comparison import LeverComparison
from agentlightning.levers.sections import COMPARISON
from agentlightning.records import AnyResource, ModelChoice, ModelRouter, Policy, Prompt, Rollout
from agentlightning.report import compare_evaluations, evaluations_of
from agentlightning.serving import model_folders
from agentlightning.store.base import Metric, RunRecord, Store

LATEST_STEPS = 6
LATEST_ROLLOUTS = 10
STATUS_STYLES = {
    "running": "cyan",
    "live": "cyan",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "yellow",
    "queued": "dim",
}


async def view(
    store: Store, id: str, *, tokens: bool = False, rollouts: str | None = None, url: str
) -> list[RenderableType]:
    """The parts of what is shown of the run or rollout whose id begins with ``id``; of a run only ``rollouts``, where
    given (`agentlightning.cli.rollout_list.chosen`)."""
    found = await find_record(store, id)
    if isinstance(found, Rollout):
        return await _rollout(store, found, tokens)
    if rollouts is not None:
        listed = chosen(await store.rollouts(found.id), rollouts)
        return rollouts_list(listed, await store.tasks(found.id, {rollout.task_id for rollout in listed}))
    return await _run(store, found, url)


async def _rollout(store: Store, rollout: Rollout, tokens: bool) -> list[RenderableType]:
    tasks = await store.tasks(rollout.run_id, [rollout.task_id])
    spans = await store.spans(rollout.id)
    summary = rollout_summary(rollout, tasks.get(rollout.task_id))
    return [facts_table(summary), rollout_tree(rollout, spans, tokens=tokens)]


async def _run(store: Store, run: RunRecord, url: str) -> list[RenderableType]:
    rollouts = await store.rollouts(run.id)
    evaluations = evaluations_of(rollouts, {})
    comparisons = compare_evaluations(evaluations)
    counted = [rollout for rollout in rollouts if rollout.counts]
    resources, metrics = await store.resources(run.id), await store.metrics(run.id)
    parts: list[RenderableType | None] = [
        facts_table(_about(run, counted)),
        _levers(run),
        comparisons_table(comparisons) if comparisons else evaluations_table(evaluations) if evaluations else None,
        _resources(resources) if resources else None,
        Text("\n".join(found), style="yellow") if (found := findings(metrics, evaluations)) else None,
        _metrics(metrics) if metrics else None,
        _failures(counted),
        _latest(rollouts) if rollouts else None,
        facts_table(_next_commands(run, url, any_failed=any(rollout.failure is not None for rollout in counted))),
    ]
    return [part for part in parts if part is not None]


def _about(run: RunRecord, rollouts: Sequence[Rollout]) -> list[tuple[str, RenderableType]]:
    statuses = Counter(rollout.status for rollout in rollouts)
    took = f", took {format_duration(run.ended_at - run.created_at)}" if run.ended_at else ""
    message = run.message
    if run.status == "interrupted":
        message = "nobody runs it any more: its process ended without a word"
    curve = _folder_of(run) / "curve.png"
    facts: list[tuple[str, RenderableType | None]] = [
        ("run", Text(run.id, style="bold")),
        ("algorithm", Text(f"{run.algorithm}, seed {run.seed}")),
        ("status", Text(run.status, style=STATUS_STYLES[run.status])),
        ("message", format_value(message) if message else None),
        ("started", Text(f"{format_time(run.created_at)}{took}")),
        ("rollouts", Text(", ".join(f"{count} {status}" for status, count in statuses.most_common()) or "none")),
        *((name, Text(value)) for name, value in run.results.items()),
        ("curve", Text(str(curve)) if curve.is_file() else None),
        ("config", format_value(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True).rstrip())),
    ]
    return [(name, value) for name, value in facts if value is not None and (name != "config" or run.config)]


def _folder_of(run: RunRecord) -> Path:
    return Path(str(run.config.get("directory") or DIRECTORY), run.id)


def _levers(run: RunRecord) -> RenderableType | None:
    """The table of a comparison of algorithms that has ended, where its folder is there."""
    if run.algorithm != COMPARISON:
        return None
    written = _folder_of(run) / "comparison.json"
    try:
        return levers_table(msgspec.json.decode(written.read_bytes(), type=LeverComparison))
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        return Text(f"{written} cannot be read: {error}", style="yellow")


def _next_commands(run: RunRecord, url: str, *, any_failed: bool) -> list[tuple[str, RenderableType]]:
    """What can be done with the run, as commands."""
    models, store = model_folders(run), store_hint(url)
    again = f"agl train --resume {run.id}{store}"
    if run.algorithm == COMPARISON:
        again = f"agl compare CONFIG --resume {run.id}"
    elif run.config.get("objects", ["config"]):  # its record does not say all
        again = f"agl train CONFIG --resume {run.id}"
    commands = [
        ("go on with it", again, run.status in ("failed", "cancelled", "interrupted")),
        ("serve its model", f"agl serve {run.id}{store}", len(models) == 1),
        *(("serve a model", f"agl serve {folder}", len(models) > 1) for folder in models),
        *(("evaluate its model", f"agl eval CONFIG --model {folder}", True) for folder in models),
        ("compare it", f"agl compare-runs {run.id} OTHER{store}", run.status == "succeeded"),
        ("see what failed", f"agl failures {run.id}{store}", any_failed),
        ("see its best rollouts", f"agl show {run.id} --rollouts best{store}", True),
        ("take it elsewhere", f"agl export {run.id}{store}", True),
    ]
    return [(what, Text(command)) for what, command, applies in commands if applies]


def _resources(resources: Sequence[AnyResource]) -> Table:
    latest = {resource.name: resource for resource in resources}
    versions = Counter(name for name, _ in {(resource.name, resource.version) for resource in resources})
    table = plain_table(
        "Resources", "name", "kind", "latest version", "versions", "what", right=("latest version", "versions")
    )
    for name, resource in latest.items():
        kind = {Policy: "policy", Prompt: "prompt", ModelChoice: "model choice", ModelRouter: "model router"}[
            type(resource)
        ]
        what = _content(resource)
        table.add_row(name, kind, str(resource.version), str(versions[name]), format_value(what))
    return table


def _content(resource: AnyResource) -> str:
    if isinstance(resource, Prompt):
        shown = [] if resource.template is None else [resource.template]
        count = len(resource.demonstrations)
        return " ".join([*shown, *([f"({count} demonstration{'s' * (count != 1)})"] if count else [])])
    if isinstance(resource, ModelRouter):
        return ", ".join(choice.name for choice in resource.choices)
    return resource.model


def _metrics(metrics: Sequence[Metric]) -> Table:
    steps = sorted({metric.step for metric in metrics})[-LATEST_STEPS:]
    values = {(metric.name, metric.step): metric.value for metric in metrics}
    headings = [f"step {step}" for step in steps]
    table = plain_table(
        f"Metrics of the last {len(steps)} steps" if len(steps) > 1 else "Metrics", "", *headings, right=headings
    )
    for name in dict.fromkeys(metric.name for metric in metrics if metric.step in steps):
        row = [values.get((name, step)) for step in steps]
        table.add_row(name, *("–" if value is None else f"{value:.4g}" for value in row))
    return table


def _failures(rollouts: Sequence[Rollout]) -> Table | None:
    ended = Counter(
        (rollout.failure.type, rollout.failure.fault) for rollout in rollouts if rollout.failure is not None
    )
    retried = Counter((failure.type, failure.fault) for rollout in rollouts for failure in rollout.failed_attempts)
    latest = {
        (failure.type, failure.fault): f"{rollout.id}: {failure.message}"
        for rollout in rollouts
        for failure in [*rollout.failed_attempts, *([rollout.failure] if rollout.failure is not None else [])]
    }
    if not latest:
        return None
    table = plain_table(
        "Failures", "type", "fault", "rollouts", "tried again", "the last one", right=("rollouts", "tried again")
    )
    for (type, fault), example in latest.items():
        first_line = example.splitlines()[0][:200]
        table.add_row(type, fault, str(ended[type, fault]), str(retried[type, fault]), format_value(first_line))
    return table


def _latest(rollouts: Sequence[Rollout]) -> Table:
    ended = sorted(rollouts, key=lambda rollout: rollout.ended_at or rollout.started_at or 0.0)[-LATEST_ROLLOUTS:]
    table = plain_table(
        f"Latest rollouts (of {len(rollouts)})",
        *("id", "collection", "task", "status", "outcome", "duration", "failure"),
        right=("outcome", "duration"),
    )
    for rollout in ended:
        seconds = rollout.ended_at - rollout.started_at if rollout.ended_at and rollout.started_at else None
        table.add_row(
            rollout.id,
            rollout.collection,
            Text(rollout.task_id),
            Text(rollout.status, style=STATUS_STYLES[rollout.status]),
            "–" if rollout.outcome is None else f"{rollout.outcome:.3g}",
            "–" if seconds is None else format_duration(seconds),
            rollout.failure.type if rollout.failure else "",
        )
    return table
