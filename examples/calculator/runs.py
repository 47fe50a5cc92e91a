"""What the quickstart gives, run after run: each seed once, the later half of them beside two busy processes.

``python runs.py`` takes about two hours on two cores. It prints a line when a run ends, then a table of all,
and fails when a run misses what the README promises.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.formatting import format_p

QUIET_SEEDS = (0, 1, 2)
BUSY_SEEDS = (3, 4, 5)
BUSY_PROCESSES = 2
HEADINGS = ("seed", "beside it", "sampled, before → after", "p", "greedy, before → after", "p", "minutes", "GB")


def train(seed: int) -> dict:
    """One run of the quickstart, in this process."""
    started = time.monotonic()
    result = Trainer.from_config(load_config("config.yaml", [f"seed={seed}", "directory=runs/six"])).fit()
    comparisons = {it.variant: {"before": it.before, "after": it.after, "p": it.p} for it in result.comparisons}
    minutes = (time.monotonic() - started) / 60
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seed": seed, "minutes": minutes, "memory": memory, **comparisons}


def spin() -> None:
    while True:
        pass


@contextmanager
def busy(processes: int):
    """So many processes that compute as fast as they can."""
    spinning = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for process in spinning:
        process.start()
    try:
        yield
    finally:
        for process in spinning:
            process.kill()


def train_apart(seed: int, beside: int) -> dict:
    """The same in a process of its own, as a user would run it, beside so many busy ones."""
    output = Path(f"runs/seed-{seed}.json")
    output.parent.mkdir(exist_ok=True)
    with busy(beside):
        subprocess.run([sys.executable, __file__, "--one", str(seed), "--output", str(output)], check=True)
    run = {**json.loads(output.read_text()), "beside": beside}
    print(row(run), flush=True)
    return run


def row(run: dict) -> str:
    cells = [str(run["seed"]), f"{run['beside']} busy processes" if run["beside"] else "nothing"]
    for variant in ("sampled", "greedy"):
        figures = run[variant]
        cells += [f"{figures['before']:.3f} → {figures['after']:.3f}", format_p(figures["p"])]
    return f"| {' | '.join([*cells, format(run['minutes'], '.0f'), format(run['memory'], '.1f')])} |"


def misses(run: dict) -> list[str]:
    """What the README promises of every run, and this one does not hold."""
    sampled, greedy = run["sampled"], run["greedy"]
    promises = {
        "sampled accuracy from at most 0.3 to at least 0.75": sampled["before"] <= 0.3 and sampled["after"] >= 0.75,
        "greedy accuracy up by at least 0.15": greedy["after"] - greedy["before"] >= 0.15,
        "p below 0.01": max(sampled["p"], greedy["p"]) < 0.01,
        "15 minutes at most, with two cores to itself": run["beside"] > 0 or run["minutes"] <= 15,
    }
    return [f"seed {run['seed']}: not held: {promise}" for promise, held in promises.items() if not held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", type=int, nargs="*", default=QUIET_SEEDS, help="seeds of the runs by themselves")
    parser.add_argument("--busy", type=int, nargs="*", default=BUSY_SEEDS, help="seeds of those beside busy processes")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        arguments.output.write_text(json.dumps(train(arguments.one)))
        return
    runs = [train_apart(seed, 0) for seed in arguments.quiet]
    runs += [train_apart(seed, BUSY_PROCESSES) for seed in arguments.busy]
    print(f"\n| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}", *map(row, runs), sep="\n")
    missed = [miss for run in runs for miss in misses(run)]
    sys.exit("\n".join(missed) or None)


if __name__ == "__main__":
    main()
