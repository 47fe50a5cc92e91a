"""Comparisons as a table of the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from agentlightning.diagnostics import ENOUGH_TASKS
from agentlightning.formatting import format_p
from agentlightning.report import Comparison


def render(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons as a table of the terminal."""
    named = any(comparison.variant for comparison in comparisons)
    tests = " / ".join(dict.fromkeys(comparison.test for comparison in comparisons))
    title = f"Held-out tasks, before and after (p: {tests})"
    table = Table(
        title=title,
        min_width=len(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    if named:
        table.add_column("variant", no_wrap=True)
    for heading in ("tasks", "before", "after", "change", "95 % interval", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for it in comparisons:
        is_sure = it.p < 0.05 and it.n >= ENOUGH_TASKS
        style = "" if not is_sure else "green" if it.difference > 0 else "red"
        row = [
            f"{it.n}" + (f" (+{it.left_out} unscored)" if it.left_out else ""),
            f"{it.before:.3f}",
            f"{it.after:.3f}",
            f"[{style}]{it.difference:+.3f}[/]" if style else f"{it.difference:+.3f}",
            "–" if it.low is None or it.high is None else f"{it.low:+.3f} … {it.high:+.3f}",
            format_p(it.p),
        ]
        table.add_row(*([it.variant or "–"] if named else []), *row)
    return table
