"""What feedback on each calculation is worth: ``python curves.py --model runs/RUN/model`` trains the model of sft.yaml
in three ways from several seeds, prints a table and draws curves.png. What has ended is kept in
runs/curves.jsonl, and not run again."""

import argparse
import asyncio
import json
from pathlib import Path
from statistics import mean, median

from matplotlib.figure import Figure

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.records import Rollout
from agentlightning.store import open_store

OUTCOME = ["reward=numeric_match"]
STEPS = ["reward=[numeric_match, 'reward:calculations']"]
WAYS = {
    "the outcome alone": [*OUTCOME, "algorithm.credit=broadcast"],
    "each calculation, broadcast": [*STEPS, "algorithm.credit=broadcast"],
    "each calculation, per call": [*STEPS, "algorithm.credit={name: discounted, gamma: 1}"],
}
"""What is set in config.yaml for each."""
KEPT, STORE = Path("runs/curves.jsonl"), "sqlite:///runs/curves.sqlite"


def train(way: str, seed: int, settings: list[str]) -> dict:
    """Trains once; the mean outcome of each step's rollouts, and how many there were by then."""
    fixed = [f"seed={seed}", f"store={STORE}", "tasks.held_out_limit=1", "algorithm.replay=0"]
    run = Trainer.from_config(load_config("config.yaml", [*WAYS[way], *fixed, *settings])).fit().run_id
    rollouts = asyncio.run(training_rollouts(run))
    steps = range(1, max(rollout.step for rollout in rollouts) + 1)
    outcomes = [mean(it.outcome for it in rollouts if it.step == step and it.outcome is not None) for step in steps]
    counts = [sum(it.step <= step for it in rollouts) for step in steps]
    return {"way": way, "seed": seed, "outcomes": outcomes, "rollouts": counts}


async def training_rollouts(run: str) -> list[Rollout]:
    store = open_store(STORE)
    try:
        return await store.rollouts(run, purpose="train")
    finally:
        await store.close()


def table(runs: list[dict]) -> str:
    """The outcome over the steps of each way: its first third, its last third, by seed."""
    lines = ["| way | first third, by seed | last third, by seed |", "| --- | --- | --- |"]
    for way in WAYS:
        of_way = sorted((run["seed"], run["outcomes"]) for run in runs if run["way"] == way)
        thirds = [(outcomes[: len(outcomes) // 3], outcomes[-(len(outcomes) // 3) :]) for _, outcomes in of_way]
        first, last = (", ".join(f"{mean(part):.2f}" for part in parts) for parts in zip(*thirds, strict=True))
        lines.append(f"| {way} | {first} | {last} |")
    return "\n".join(lines)


def draw(runs: list[dict], path: str) -> None:
    """The median of each way's seeds, and the band from the lowest to the highest."""
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for way in WAYS:
        of_way = [run for run in runs if run["way"] == way]
        columns = list(zip(*(run["outcomes"] for run in of_way), strict=True))
        places = of_way[0]["rollouts"]
        (line,) = axes.plot(places, [median(column) for column in columns], label=way, linewidth=2)
        low, high = [min(it) for it in columns], [max(it) for it in columns]
        axes.fill_between(places, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set(xlabel="rollouts", ylabel="right answers, new tasks", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="the folder of the model that sft.yaml has made")
    parser.add_argument("--seeds", type=int, nargs="*", default=range(3))
    parser.add_argument("--set", action="append", default=[], help="a key of config.yaml, as a.b=value")
    arguments = parser.parse_args()
    KEPT.parent.mkdir(exist_ok=True)
    runs = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    for seed in arguments.seeds:
        for way in WAYS:
            if not any(run["way"] == way and run["seed"] == seed for run in runs):
                runs.append(train(way, seed, [f"algorithm.model.path={arguments.model}", *arguments.set]))
                with KEPT.open("a") as kept:
                    kept.write(json.dumps(runs[-1]) + "\n")
    draw(runs, "curves.png")
    print(table(runs))


if __name__ == "__main__":
    main()
