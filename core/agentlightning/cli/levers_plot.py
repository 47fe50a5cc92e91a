"""A comparison of algorithms as a PNG: what each gained, with its interval; needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from agentlightning.cli.curve import GREY, can_draw, plain_axes
from agentlightning.formatting import format_number
from agentlightning.levers.comparison import LeverComparison
from agentlightning.loading import explain

logger = logging.getLogger(__name__)

BETTER = "#3a7d44"
"""What is shown to be better than the baseline."""
FILE = "comparison.png"


def draw_levers(found: LeverComparison, path: Path) -> Path | None:
    """Writes a row for each lever to ``path`` and returns it; None where there is nothing to draw, or no matplotlib."""
    if not can_draw() or all(row.comparison is None for row in found.rows):
        return None
    try:
        _draw(found, path)
    except Exception as error:  # noqa: BLE001 - matplotlib raises anything on numbers that it cannot draw
        logger.warning("the comparison cannot be drawn to %s: %s", path, explain(error))
        return None
    return path


def _draw(found: LeverComparison, path: Path) -> None:
    from matplotlib.figure import Figure

    rows = [(row, row.comparison) for row in found.rows if row.comparison is not None]
    figure = Figure(figsize=(9, 1.3 + 0.55 * len(rows)), dpi=150, layout="constrained")
    axes: Any = figure.add_subplot()
    for place, (row, it) in enumerate(rows):
        color = BETTER if row.is_better(found.alpha) else GREY
        if it.low is not None and it.high is not None:
            axes.plot([it.low, it.high], [place, place], color=color, linewidth=2, solid_capstyle="round")
        axes.plot(it.difference, place, color=color, marker="o", markersize=8, linestyle="")
        said = f"{format_number(it.before)} → {format_number(it.after)}"
        if row.account is not None:
            said += f",  {row.account.learning.rollouts} rollouts, {row.account.seconds / 60:.0f} min"
        axes.annotate(said, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, color="#2b3137")
    axes.axvline(0, color="#c5ccd3", linewidth=1, zorder=0)
    axes.set_yticks(range(len(rows)), [row.name for row, _ in rows])
    axes.invert_yaxis()
    axes.margins(y=0.5 / len(rows))
    axes.set_title(f"{found.name}  ·  {found.tasks} held-out tasks", loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("change of the mean outcome, with its 95 % interval; green is shown to be better", color=GREY)
    plain_axes(axes, grid="x")
    axes.tick_params(axis="y", labelcolor="#2b3137")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")
