"""What each role learns, run after run: ``python runs.py`` trains once for each seed and prints a table."""

import argparse
import time

from agentlightning import Trainer
from agentlightning.config import load_config

MEASURES = ("planner", "writer", "answer")


def mean_of(evaluation, name: str) -> float:
    """The mean of a reward, over the held-out rollouts that have it."""
    values = [part.value for one in evaluation.rollouts for part in one.rewards if part.name == f"worth.{name}"]
    return sum(values) / len(values) if values else float("nan")


def row(seed: int, options: list[str]) -> str:
    """Trains; what the held-out tasks gave before and after, as a row of the table."""
    started = time.monotonic()
    result = Trainer.from_config(load_config("config.yaml", [f"seed={seed}", *options])).fit()
    cells = [str(seed)]
    for variant in ("sampled", "greedy"):
        before, *_, after = sorted(
            (one for one in result.evaluations if one.variant == variant), key=lambda it: it.step
        )
        cells += [f"{mean_of(before, name):.2f} → {mean_of(after, name):.2f}" for name in MEASURES]
    return f"| {' | '.join([*cells, f'{(time.monotonic() - started) / 60:.1f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=(0, 1, 2))
    parser.add_argument("--set", action="append", default=[], help="a key of config.yaml, as a.b=value")
    arguments = parser.parse_args()
    headings = [f"{name}, {variant}" for variant in ("sampled", "greedy") for name in MEASURES]
    print(f"| seed | {' | '.join(headings)} | minutes |\n|{' --- |' * (len(headings) + 2)}")
    for seed in arguments.seeds:
        print(row(seed, arguments.set), flush=True)


if __name__ == "__main__":
    main()
