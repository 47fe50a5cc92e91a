"""The failures of a run, as what a terminal shows of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agentlightning.cli.commands.common import store_hint
from agentlightning.cli.tables import plain_table
from agentlightning.cli.tree import format_value
from agentlightning.failures import By, FailureBucket, FailureReport, FailureShare
from agentlightning.formatting import format_time
from agentlightning.store.tries import TryKind

MAX_SHOWN = 20
MAX_MESSAGE = 160
BAR_WIDTH = 40
NOUNS: dict[TryKind, str] = {
    "rollout": "rollouts",
    "agent": "turns",
    "llm": "model calls",
    "tool": "tool calls",
    "retrieval": "retrievals",
    "handoff": "hand-offs",
}
HEADINGS: dict[By, str] = {"type": "failure", "agent": "agent", "tool": "tool", "model": "model"}
WHAT_FAILED: dict[By, str] = {"type": "Nothing", "agent": "No agent", "tool": "No tool", "model": "No model"}


def failures_view(report: FailureReport, run_name: str, url: str) -> RenderableType:
    """What failed, one line each with its latest example, how that went over time where it was asked for, and the
    command to go on with."""
    parts: list[RenderableType] = [_heading(report, run_name)]
    if report.shares:
        parts += [Text(), _table(report)]
    else:
        parts += [Text(f"{WHAT_FAILED[report.by]} failed.", style="green" if report.rollouts else "dim")]
    if report.over_time and report.bucket is not None:
        parts += [Text(), _over_time(report.over_time, report.bucket)]
    if report.shares:
        parts += [Text(), _next_step(report, url)]
    return Group(*parts)


def _heading(report: FailureReport, name: str) -> Text:
    since = f", since {format_time(report.since)}" if report.since is not None else ""
    return Text.assemble(
        ("Failures", "bold"),
        " of ",
        format_value(name),
        f" ({report.run_id}){since}: {report.rollouts_failed:,} of {report.rollouts:,} rollouts, "
        f"{report.steps_failed:,} of {report.steps:,} steps",
    )


def _table(report: FailureReport) -> Table:
    shown, more = report.shares[:MAX_SHOWN], len(report.shares) - MAX_SHOWN
    table = plain_table("", HEADINGS[report.by], right=())
    table.title = None
    for heading in ("failed", "share", "95 % interval", "survived"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("the last one", overflow="fold")
    for share in shown:
        table.add_row(
            _name(share, report.by),
            f"{share.failed:,} of {share.tried:,} {NOUNS[share.kind]}",
            _percent(share.share),
            f"{_percent(share.low)} … {_percent(share.high)}",
            f"{share.survived:,}" if share.kind != "rollout" else "–",
            _example(share),
        )
    if more > 0:
        table.caption, table.caption_justify = f"… and {more} more; --json has all", "left"
    return table


def _name(share: FailureShare, by: By) -> Text:
    if by == "type":
        style = "bold red" if share.fault == "agent" else "bold yellow"
        whose = " (infrastructure)" if share.fault == "infrastructure" else ""
        return Text.assemble((format_value(share.type).plain, style), (whose, "dim"))
    types = ", ".join(f"{count} {format_value(type).plain}" for type, count in share.types.items())
    return Text.assemble((format_value(share.name).plain, "bold"), f": {types}")


def _example(share: FailureShare) -> Text:
    if share.example is None:
        return Text("–")
    where = f" ({share.example.where})" if share.example.where is not None else ""
    message = format_value(share.example.message, MAX_MESSAGE)
    return Text.assemble((share.example.rollout_id, "cyan"), " ", message, where)


def _over_time(buckets: Sequence[FailureBucket], bucket: float) -> Table:
    """A line for each bucket: a bar as long as so many of its rollouts failed, or of its steps where none did."""
    rollouts = any(one.rollouts_failed for one in buckets)
    most = max(one.rollouts_failed if rollouts else one.steps_failed for one in buckets)
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("from", no_wrap=True)
    for heading in ("rollouts failed", "steps failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    form = "%H:%M:%S" if bucket < 60 else "%m-%d %H:%M" if bucket < 86_400 else "%Y-%m-%d"
    for one in buckets:
        failed = one.rollouts_failed if rollouts else one.steps_failed
        width = round(BAR_WIDTH * failed / most) if most else 0
        table.add_row(
            time.strftime(form, time.localtime(one.begin)),
            f"{one.rollouts_failed:,} of {one.rollouts:,}",
            f"{one.steps_failed:,} of {one.steps:,}",
            Text("█" * max(width, 1 if failed else 0), style="red"),
        )
    return table


def _next_step(report: FailureReport, url: str) -> Text:
    first = report.shares[0]
    hint, run = store_hint(url), report.run_id
    lines: list[tuple[str, str]] = []
    if first.example is not None:
        lines.append(
            (f"agl show {first.example.rollout_id}{hint}", "what happened in the last rollout of the first line")
        )
    if report.by == "type":
        by = {"tool": "tool", "llm": "model"}.get(first.kind, "agent")
        lines.append((f"agl failures {run} --by {by}{hint}", f"which {by} it was"))
    if report.rollouts_failed:
        lines.append((f"agl show {run} --rollouts failed{hint}", "what went into those that failed, and what came out"))
    width = max(len(command) for command, _ in lines) if lines else 0
    text = Text("next: ")
    for number, (command, why) in enumerate(lines):
        text.append("      " if number else "").append(command.ljust(width), "bold").append(f"  {why}", "dim")
        text.append("\n" if number < len(lines) - 1 else "")
    return text


def _percent(share: float) -> str:
    """``12.3 %``; ``0.04 %`` where that would be 0.0."""
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else f"{100 * share:.2g} %"
