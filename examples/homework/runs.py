"""How many rollouts each credit needs: ``python runs.py`` trains with each of them from five seeds, prints a table and
draws curves.png. What has ended is kept in runs/curves.jsonl, and not run again."""

import argparse
import asyncio
import json
import math
from pathlib import Path
from statistics import mean, median

from matplotlib.figure import Figure

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.records import Rollout
from agentlightning.store import open_store

PROGRESS = "{name: intermediate, config: {signals: {}, progress: 'worth:first_right'}}"
WAYS = {
    "broadcast": [],
    "gigpo": ["algorithm.credit={name: gigpo, omega: 4}"],
    "intermediate": [f"reward=[worth:right, {PROGRESS}]", "algorithm.credit={name: discounted, gamma: 1}"],
}
"""What is set in config.yaml for each."""
TARGET, OVER = 0.6, 4
"""Learned: so much in the mean of so many steps, whose tasks were all new."""
KEPT, STORE = Path("runs/curves.jsonl"), "sqlite:///runs/curves.sqlite"


def train(way: str, seed: int, options: list[str]) -> dict:
    """Trains once; the mean outcome of each step's rollouts, and how many there were by then."""
    settings = [*WAYS[way], f"seed={seed}", f"store={STORE}", "tasks.held_out_limit=1", *options]
    run = Trainer.from_config(load_config("config.yaml", settings)).fit().run_id
    rollouts = asyncio.run(training_rollouts(run))
    steps = range(1, max(rollout.step for rollout in rollouts) + 1)
    by_step = {step: [it.outcome for it in rollouts if it.step == step and it.outcome is not None] for step in steps}
    counts = [sum(it.step <= step for it in rollouts) for step in steps]
    return {"way": way, "seed": seed, "outcomes": [mean(by_step[step]) for step in steps], "rollouts": counts}


async def training_rollouts(run: str) -> list[Rollout]:
    store = open_store(STORE)
    try:
        return await store.rollouts(run, purpose="train")
    finally:
        await store.close()


def needed(run: dict) -> float:
    """The rollouts until it had learned; infinite where it had not."""
    for last in range(OVER, len(run["outcomes"]) + 1):
        if mean(run["outcomes"][last - OVER : last]) >= TARGET:
            return run["rollouts"][last - 1]
    return math.inf


def table(runs: list[dict]) -> str:
    by_way = {way: sorted((run for run in runs if run["way"] == way), key=lambda run: run["seed"]) for way in WAYS}
    counts = {way: [needed(run) for run in of_way] for way, of_way in by_way.items() if of_way}
    most = max(run["rollouts"][-1] for run in runs)
    lines = ["| way | rollouts until learned, by seed | median |", "| --- | --- | --- |"]
    for way, values in counts.items():
        *each, middle = (f"{it:.0f}" if it < math.inf else f"over {most}" for it in [*values, median(values)])
        lines.append(f"| {way} | {', '.join(each)} | {middle} |")
    return "\n".join(lines)


def draw(runs: list[dict], path: str) -> None:
    """The median of each way's seeds, and the band from the lowest to the highest."""
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for way in WAYS:
        of_way = [run for run in runs if run["way"] == way]
        if not of_way:
            continue
        columns = list(zip(*(run["outcomes"] for run in of_way), strict=True))
        (line,) = axes.plot(of_way[0]["rollouts"], [median(column) for column in columns], label=way, linewidth=2)
        axes.fill_between(
            of_way[0]["rollouts"], [min(it) for it in columns], [max(it) for it in columns],
            color=line.get_color(), alpha=0.12, linewidth=0,
        )  # fmt: skip
    axes.axhline(TARGET, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="rollouts", ylabel="right answers, new tasks", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="*", default=range(5))
    parser.add_argument("--set", action="append", default=[], help="a key of config.yaml, as a.b=value")
    arguments = parser.parse_args()
    KEPT.parent.mkdir(exist_ok=True)
    runs = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    for seed in arguments.seeds:
        for way in arguments.ways:
            if not any(run["way"] == way and run["seed"] == seed for run in runs):
                runs.append(train(way, seed, arguments.set))
                with KEPT.open("a") as kept:
                    kept.write(json.dumps(runs[-1]) + "\n")
    draw(runs, "curves.png")
    print(table(runs))


if __name__ == "__main__":
    main()
