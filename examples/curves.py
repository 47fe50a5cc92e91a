"""How many rollouts each way to learn needs: ``python ../curves.py curves.yaml`` in the folder of an example.

The file names a config, and what is set in it for each way. Each is trained from several seeds; then a table is printed
and curves.png drawn. What has ended is kept in runs/curves.jsonl, and not run again.
"""

import argparse
import asyncio
import math
from pathlib import Path
from statistics import mean, median

import msgspec
from matplotlib.figure import Figure

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.records import Rollout
from agentlightning.store import open_store

KEPT, STORE = Path("runs/curves.jsonl"), "sqlite:///runs/curves.sqlite"


class Curves(msgspec.Struct, forbid_unknown_fields=True):
    """What is compared, on steps whose tasks are all new. A way has learned when the mean outcome of ``over`` steps is
    ``target``; without a target the first third of each run is compared with the last."""

    config: str
    ways: dict[str, list[str]]
    target: float | None = None
    over: int = 4
    seeds: int = 5
    label: str = "mean outcome, new tasks"


class Curve(msgspec.Struct):
    """The mean outcome of each step's rollouts, and how many rollouts there were by then."""

    way: str
    seed: int
    outcomes: list[float]
    rollouts: list[int]

    def needed(self, target: float, over: int) -> float:
        """The rollouts until it had learned; infinite where it had not."""
        for last in range(over, len(self.outcomes) + 1):
            if mean(self.outcomes[last - over : last]) >= target:
                return self.rollouts[last - 1]
        return math.inf

    def thirds(self) -> tuple[float, float]:
        """The mean outcome of the first third of the steps, and of the last."""
        size = max(1, len(self.outcomes) // 3)
        return mean(self.outcomes[:size]), mean(self.outcomes[-size:])


def train(config: str, way: str, seed: int, settings: list[str]) -> Curve:
    """Trains once."""
    settings = [*settings, f"seed={seed}", f"store={STORE}", "tasks.held_out_limit=1"]
    run = Trainer.from_config(load_config(config, settings)).fit().run_id
    rollouts = asyncio.run(training_rollouts(run))
    steps = range(1, max(rollout.step for rollout in rollouts) + 1)
    by_step = [[it.outcome for it in rollouts if it.step == step and it.outcome is not None] for step in steps]
    counts = [sum(it.step <= step for it in rollouts) for step in steps]
    return Curve(way, seed, [mean(outcomes) for outcomes in by_step], counts)


async def training_rollouts(run: str) -> list[Rollout]:
    store = open_store(STORE)
    try:
        return await store.rollouts(run, purpose="train")
    finally:
        await store.close()


def table(curves: Curves, found: dict[str, list[Curve]]) -> str:
    return table_of_thirds(found) if curves.target is None else table_of_rollouts(found, curves.target, curves.over)


def table_of_rollouts(found: dict[str, list[Curve]], target: float, over: int) -> str:
    most = max(one.rollouts[-1] for of_way in found.values() for one in of_way)
    lines = ["| way | rollouts until learned, by seed | median |", "| --- | --- | --- |"]
    for way, of_way in found.items():
        counts = [one.needed(target, over) for one in of_way]
        *each, middle = (f"{it:.0f}" if it < math.inf else f"over {most}" for it in [*counts, median(counts)])
        lines.append(f"| {way} | {', '.join(each)} | {middle} |")
    return "\n".join(lines)


def table_of_thirds(found: dict[str, list[Curve]]) -> str:
    lines = ["| way | first third, by seed | last third, by seed |", "| --- | --- | --- |"]
    for way, of_way in found.items():
        first, last = (", ".join(f"{it:.2f}" for it in third) for third in zip(*map(Curve.thirds, of_way), strict=True))
        lines.append(f"| {way} | {first} | {last} |")
    return "\n".join(lines)


def draw(curves: Curves, found: dict[str, list[Curve]], path: str) -> None:
    """The median of each way's seeds, and the band from the lowest to the highest."""
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for way, of_way in found.items():
        columns = list(zip(*(one.outcomes for one in of_way), strict=True))
        (line,) = axes.plot(of_way[0].rollouts, [median(column) for column in columns], label=way, linewidth=2)
        low, high = [min(it) for it in columns], [max(it) for it in columns]
        axes.fill_between(of_way[0].rollouts, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    if curves.target is not None:
        axes.axhline(curves.target, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="rollouts", ylabel=curves.label, ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--ways", nargs="*", help="only these  [default: all]")
    parser.add_argument("--seeds", type=int, nargs="*", help="only these  [default: as many as the file says]")
    parser.add_argument("--set", action="append", default=[], help="a key of the config, as a.b=value")
    arguments = parser.parse_args()
    curves = msgspec.yaml.decode(arguments.file.read_bytes(), type=Curves)
    if unknown := set(arguments.ways or ()) - set(curves.ways):
        parser.error(f"{arguments.file} has no way {', '.join(unknown)}; there is {', '.join(curves.ways)}")
    KEPT.parent.mkdir(exist_ok=True)
    ended = [msgspec.json.decode(line, type=Curve) for line in KEPT.read_bytes().splitlines()] if KEPT.exists() else []
    for seed in range(curves.seeds) if arguments.seeds is None else arguments.seeds:
        for way in arguments.ways or curves.ways:
            if not any((one.way, one.seed) == (way, seed) for one in ended):
                ended.append(train(curves.config, way, seed, [*curves.ways[way], *arguments.set]))
                with KEPT.open("ab") as kept:
                    kept.write(msgspec.json.encode(ended[-1]) + b"\n")
    by_seed = sorted(ended, key=lambda one: one.seed)
    found = {way: of_way for way in curves.ways if (of_way := [one for one in by_seed if one.way == way])}
    draw(curves, found, "curves.png")
    print(table(curves, found))


if __name__ == "__main__":
    main()
