"""The learning curve of a run as a PNG; needs matplotlib, the extra ``plot``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning.algorithm import Evaluation
from agentlightning.loading import explain
from agentlightning.records import Record, Rollout
from agentlightning.report import evaluations_of
from agentlightning.store.base import RunRecord, Store

logger = logging.getLogger(__name__)

WITHOUT_MATPLOTLIB = "no curve was drawn: that needs matplotlib (pip install matplotlib)"

LINE = "#2a6fb0"
VARIANTS = ("#d1495b", "#3a7d44", "#8661c1", "#c77d0a")
GREY = "#5f6b76"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


class StepReward(Record, kw_only=True):
    """The rewards of a step's rollouts: the mean over its groups, and their standard deviation.

    ``spread`` is 0 for a single group. Rollouts that infrastructure broke or nobody could score are left out.
    """

    step: int
    mean: float
    spread: float
    low: float
    high: float


async def draw_curve(store: Store, run: RunRecord, path: Path) -> str | None:
    """Writes the curve of a run to ``path`` and returns it; None where there is nothing to draw, no matplotlib
    to draw it with, no place to write it, or where its numbers are beyond what can be drawn."""
    if not can_draw():
        return None
    rollouts = await store.rollouts(run.id)
    with np.errstate(over="ignore", invalid="ignore"):  # rewards may be as large as a float can be
        steps = rewards_by_step(rollouts)
    found = [*evaluations_of(rollouts, {}), *evaluations_of(rollouts, {}, purpose="validate")]
    evaluations = [evaluation for evaluation in found if evaluation.mean is not None]
    if not steps and not evaluations:
        return None
    try:
        await asyncio.to_thread(_draw, run, steps, evaluations, path)
    except OSError as error:
        logger.warning("the curve cannot be written to %s: %s", path, error)
        return None
    except Exception as error:  # noqa: BLE001 - matplotlib raises anything on numbers that it cannot draw
        logger.warning("the curve cannot be drawn: %s", explain(error))
        return None
    return str(path)


def rewards_by_step(rollouts: Sequence[Rollout]) -> list[StepReward]:
    """The mean outcome of each training step, by its number."""
    groups: dict[int, dict[str, list[float]]] = {}
    for rollout in rollouts:
        if rollout.purpose == "train" and rollout.is_scorable and rollout.outcome is not None:
            groups.setdefault(rollout.step, {}).setdefault(rollout.group_id, []).append(rollout.outcome)
    steps = []
    for step, members in sorted(groups.items()):
        rewards = [reward for group in members.values() for reward in group]
        means = [float(np.mean(group)) for group in members.values()]
        mean, spread = float(np.mean(means)), float(np.std(means))
        low, high = max(mean - spread, min(rewards)), min(mean + spread, max(rewards))
        steps.append(StepReward(step=step, mean=mean, spread=spread, low=low, high=high))
    return steps


def _draw(run: RunRecord, steps: Sequence[StepReward], evaluations: Sequence[Evaluation], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), dpi=150, layout="constrained")
    axes: Any = figure.add_subplot()
    _draw_steps(axes, steps)
    _draw_evaluations(axes, evaluations)
    axes.set_title(f"{run.name}  ·  {run.algorithm}, seed {run.seed}", loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel("step", color=GREY)
    axes.set_ylabel("reward", color=GREY)
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain_axes(axes, grid="y")
    axes.margins(x=0.04, y=0.08)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.01, 1.0), labelcolor="#2b3137")
    figure.text(1, 0, run.id, fontsize=6.5, color="#a0a8b0", ha="right", va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor="white")


def plain_axes(axes: Any, *, grid: str) -> None:
    """No frame and no ticks; pale lines along one axis, ``x`` or ``y``."""
    axes.tick_params(colors=GREY, length=0)
    axes.grid(axis=grid, color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c5ccd3")


def _draw_steps(axes: Any, steps: Sequence[StepReward]) -> None:
    if not steps:
        return
    numbers = [step.step for step in steps]
    marker = "o" if len(steps) <= 60 else None
    means = [step.mean for step in steps]
    axes.plot(numbers, means, color=LINE, linewidth=2, marker=marker, markersize=4, label="training, mean of a step")
    if any(step.spread for step in steps):
        low, high = [step.low for step in steps], [step.high for step in steps]
        label = "± 1 standard deviation\nover the tasks of a step"
        axes.fill_between(numbers, low, high, color=LINE, alpha=0.14, linewidth=0, label=label)


def _draw_evaluations(axes: Any, evaluations: Sequence[Evaluation]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for evaluation in evaluations:
        if evaluation.mean is not None:
            lines.setdefault(_label(evaluation), []).append((evaluation.step, evaluation.mean))
    highest: dict[int, float] = {}
    for x, y in (point for points in lines.values() for point in points):
        highest[x] = max(y, highest.get(x, y))
    for number, (label, points) in enumerate(lines.items()):
        color = VARIANTS[number % len(VARIANTS)]
        across, up = zip(*sorted(points), strict=True)
        axes.plot(across, up, color=color, linestyle=(0, (2, 3)), linewidth=1, alpha=0.7)
        axes.plot(across, up, color=color, linestyle="", marker="D", markersize=7, label=label)
        for x, y in points:
            above = y == highest[x]
            axes.annotate(
                f"{y:.2f}",
                (x, y),
                xytext=(0, 9 if above else -9),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                color=color,
                fontsize=9,
            )


def _label(evaluation: Evaluation) -> str:
    if evaluation.purpose == "validate":
        return "validation"
    return f"held-out, {evaluation.variant}" if evaluation.variant else "held-out"
