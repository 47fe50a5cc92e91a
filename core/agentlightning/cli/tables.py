"""What was measured, as tables of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.table import Table

from agentlightning.algorithm import Evaluation
from agentlightning.diagnostics import ENOUGH_TASKS
from agentlightning.formatting import format_number, format_p
from agentlightning.report import Comparison, bootstrap_interval


def plain_table(title: str, *headings: str, right: Sequence[str] = ()) -> Table:
    """An empty table with a title and no lines; the columns ``right`` are aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    return table


def facts_table(facts: Sequence[tuple[str, RenderableType]]) -> Table:
    """Names and what there is to say of each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value)
    return table


def comparisons_table(
    comparisons: Sequence[Comparison],
    *,
    title: str = "Held-out tasks, before and after",
    first: str = "before",
    second: str = "after",
) -> Table:
    """Comparisons of the evaluations ``first`` and ``second``, one a line."""
    tests = " / ".join(dict.fromkeys(comparison.test for comparison in comparisons))
    table = _numbers(f"{title} (p: {tests})", any(comparison.variant for comparison in comparisons))
    for heading in ("tasks", first, second, "change", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for comparison in comparisons:
        is_sure = comparison.p < 0.05 and comparison.n >= ENOUGH_TASKS
        style = "" if not is_sure else "green" if comparison.difference > 0 else "red"
        change = f"{comparison.difference:+.3f}"
        table.add_row(
            *([comparison.variant or "–"] if len(table.columns) > 6 else []),
            f"{comparison.n}" + (f" (+{comparison.left_out} unscored)" if comparison.left_out else ""),
            f"{comparison.before:.3f}",
            f"{comparison.after:.3f}",
            f"[{style}]{change}[/]" if style else change,
            _interval(comparison.low, comparison.high, "+.3f"),
            format_p(comparison.p),
        )
    return table


def evaluations_table(evaluations: Sequence[Evaluation], *, title: str = "Evaluations") -> Table:
    """The mean reward of each evaluation, with its 95 % interval over the tasks."""
    table = _numbers(title, any(evaluation.variant for evaluation in evaluations))
    for heading in ("step", "tasks", "mean reward", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for evaluation in evaluations:
        rewards = np.array([reward for reward in evaluation.rewards if reward is not None], np.float64)
        unscored = len(evaluation.tasks) - len(rewards)
        low, high = bootstrap_interval(rewards) if len(set(rewards.tolist())) > 1 else (None, None)
        table.add_row(
            *([evaluation.variant or "–"] if len(table.columns) > 4 else []),
            str(evaluation.step),
            f"{len(rewards)}" + (f" (+{unscored} unscored)" if unscored else ""),
            "–" if evaluation.mean is None else format_number(evaluation.mean),
            _interval(low, high, ".3f"),
        )
    return table


def number_table(title: str, *, min_width: int | None = None) -> Table:
    """An empty table of numbers in the style of all of them."""
    return Table(
        title=title,
        min_width=min_width,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )


def _numbers(title: str, named: bool) -> Table:
    """An empty table of numbers, with a first column for the variant where variants are ``named``."""
    table = number_table(title, min_width=len(title))
    if named:
        table.add_column("variant", no_wrap=True)
    return table


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "–" if low is None or high is None else f"{low:{form}} … {high:{form}}"
