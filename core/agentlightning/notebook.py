"""A run's result as a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from agentlightning.algorithm import Evaluation
from agentlightning.formatting import format_number, format_p
from agentlightning.report import Comparison


def html_of(
    comparisons: Sequence[Comparison],
    evaluations: Sequence[Evaluation],
    results: Mapping[str, str],
    findings: Sequence[str],
) -> str:
    """The comparisons as a table (without any, the evaluations), what came of the run, and what speaks against it."""
    if comparisons:
        heads = ["variant", "tasks", "before", "after", "change", "95 % interval", "p"]
        rows = [_comparison(comparison) for comparison in comparisons]
    else:
        heads = ["step", "variant", "tasks", "mean reward"]
        rows = [
            [str(each.step), each.variant, str(len(each.tasks)), "–" if each.mean is None else format_number(each.mean)]
            for each in evaluations
        ]
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{lines}</table>" if rows else ""
    named = "".join(f"<div>{escape(name)}: <code>{escape(value)}</code></div>" for name, value in results.items())
    return table + named + "".join(f"<div>{escape(finding)}</div>" for finding in findings)


def _comparison(comparison: Comparison) -> list[str]:
    low, high = comparison.low, comparison.high
    return [
        comparison.variant,
        str(comparison.n),
        format_number(comparison.before),
        format_number(comparison.after),
        f"{comparison.difference:+.3f}",
        "–" if low is None or high is None else f"{low:+.3f} … {high:+.3f}",
        format_p(comparison.p),
    ]
