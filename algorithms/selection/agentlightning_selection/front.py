"""Quality against cost: the front of what nothing else beats in both, as a table and as a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PICTURE = "front.png"
TABLE = "front.csv"
NO_PICTURE = "no picture: pip install 'matplotlib>=3.8'"


@dataclass(frozen=True)
class Point:
    """A way to answer tasks: its mean outcome, and mean dollars and seconds a rollout; nan where they are not known.
    ``price`` is that of a unit of outcome, where a router chose by one."""

    name: str
    outcome: float
    dollars: float
    seconds: float = math.nan
    tasks: int = 0
    price: float | None = None


def on_front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in outcome and dollars, the cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.dollars, -one.outcome)):
        if not math.isnan(point.outcome) and (not front or point.outcome > front[-1].outcome):
            front.append(point)
    return front


def write_table(points_on: Mapping[str, Sequence[Point]], folder: Path) -> Path:
    """Points as CSV in the run's folder, by the tasks that they are of, the cheapest first, and whether each is on the
    front. A price is the same in all: what it costs on the ones and gives on the others."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TABLE
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["tasks", "name", "price", "dollars", "outcome", "seconds", "count", "on_front"])
        for tasks, points in points_on.items():
            front = on_front(points)
            for point in sorted(points, key=lambda one: (one.dollars, one.outcome)):
                price = "" if point.price is None else f"{point.price:.6g}"
                numbers = [f"{value:.6g}" for value in (point.dollars, point.outcome, point.seconds)]
                writer.writerow([tasks, point.name, price, *numbers, point.tasks, point in front])
    return path


def draw(points: Sequence[Point], folder: Path, title: str) -> Path | None:
    """The points as a picture in the run's folder; None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    alone = [point for point in points if point.price is None]
    routed = sorted((point for point in points if point.price is not None), key=lambda one: one.dollars)
    if routed:
        axes.plot([one.dollars for one in routed], [one.outcome for one in routed], ".-", label="chosen by task")
    axes.scatter([one.dollars for one in alone], [one.outcome for one in alone], color="black", label="one model")
    widest = max(point.dollars for point in points)
    for one in alone:
        side, away = ("right", -4) if one.dollars > widest / 2 else ("left", 4)
        axes.annotate(one.name, (one.dollars, one.outcome), (away, 4), textcoords="offset points", fontsize=7, ha=side)
    front = on_front(points)
    axes.step([p.dollars for p in front], [p.outcome for p in front], where="post", alpha=0.4, label="front")
    axes.set(xlabel="dollars a rollout (mean)", ylabel="outcome (mean)", title=title)
    axes.legend(fontsize=8)
    path = folder / PICTURE
    figure.savefig(path, dpi=120)
    return path
