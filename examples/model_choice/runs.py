"""What choosing a model gives on recorded scores: every number of the README.

    python runs.py contextual --features FOLDER     # every model on every question, then chosen by question
    python runs.py contextual --run RUN             # the table of a run that is there already
    python runs.py thompson                         # ten seeds of live traffic, against the best fixed model

The endpoint is started and ended with it. All rollouts go through the ordinary runner and store, in ``runs``.
"""

import argparse
import asyncio
import csv
import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from endpoint import HERE, serve, table_of

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.store import open_store
from agentlightning_selection.features import features_of
from agentlightning_selection.neighbours import Neighbours
from agentlightning_selection.pricing import route

STORE = "sqlite:///runs/model_choice.db"
LIMITS = (1.0, 0.75, 0.55, 0.25)
"""Shares of the best single model's price."""
SEEDS, DECISIONS, BATCH = 10, 1000, 20


def answer_forever() -> None:
    asyncio.run(serve(table_of(HERE / "data" / "answers.jsonl")))


@contextmanager
def answering() -> Iterator[None]:
    """The endpoint, in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=answer_forever, daemon=True)
    process.start()
    time.sleep(3)
    try:
        yield
    finally:
        process.kill()
        process.join()


def train(*overrides: str) -> str:
    """A run of ``config.yaml``; its id."""
    settings = [f"store={STORE}", "directory=runs", *overrides]
    return Trainer.from_config(load_config("config.yaml", settings)).fit().run_id


def show_contextual(run: str) -> None:
    """The single models, and what each limit of price gives: the price of a unit of outcome is the one whose
    cross-validated dollars stay under the limit, so no held-out task is looked at to choose it."""
    with (Path("runs") / run / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    held_out = [row for row in rows if row["tasks"] == "held out"]
    alone = [row for row in held_out if not row["price"]]
    best = max(alone, key=lambda row: float(row["outcome"]))
    dollars = float(best["dollars"])
    print(f"{'':44} outcome  of the best single model's price")
    for row in sorted(alone, key=lambda row: float(row["dollars"])):
        print(f"{row['name']:44} {float(row['outcome']):.3f}    {float(row['dollars']) / dollars:.2f}")
    prices = {}
    trained = [row for row in rows if row["tasks"] == "cross-validated" and row["price"]]
    routed = {row["price"]: row for row in held_out if row["price"]}
    for limit in LIMITS:
        within = [row for row in trained if float(row["dollars"]) <= limit * dollars * (1 + 1e-9)]
        prices[limit] = max(within, key=lambda row: float(row["price"]))["price"]
        chosen = routed[prices[limit]]
        outcome, share = float(chosen["outcome"]), float(chosen["dollars"]) / dollars
        print(f"{f'by question, at most {limit:.2f} in training':44} {outcome:.3f}    {share:.2f}")
    show_new(Path("runs") / run / "router", {limit: float(price) for limit, price in prices.items()}, best["name"])
    for row in alone:
        as_cheap = [one for one in routed.values() if float(one["dollars"]) <= float(row["dollars"]) * 1.001]
        above = max(float(one["outcome"]) for one in as_cheap)
        verdict = "on or above" if above >= float(row["outcome"]) - 1e-9 else "BELOW"
        print(f"the front at the price of {row['name']}: {above:.3f}, {verdict} it")


def show_new(folder: Path, prices: dict[float, float], best: str) -> None:
    """The same for the held-out questions that are no training questions as well."""
    table, trained = (
        table_of(HERE / "data" / "answers.jsonl"),
        {question.rstrip() for question in questions_of("train")},
    )
    new = [question for question in questions_of("held_out") if question.rstrip() not in trained]
    settings = json.loads((folder / "router.json").read_text())
    arrays = {name: np.load(folder / f"{name}.npy") for name in ("features", "outcomes", "costs")}
    neighbours = Neighbours(**arrays, count=settings["count"], temperature=settings["temperature"])
    predicted = neighbours.predict(features_of(settings["features"])(new))
    models = [candidate["model"] for candidate in load_config("config.yaml").algorithm["candidates"]]
    scores = np.array([[table[question][model] for model in models] for question in new])
    dollars = np.nanmean(arrays["costs"], axis=0)
    place = models.index(best)
    print(f"of the {len(new)} held-out questions that are not in training: {best} {scores[:, place].mean():.3f}")
    for limit, price in prices.items():
        chosen = route(*predicted, price)
        outcome, share = scores[np.arange(len(new)), chosen].mean(), dollars[chosen].mean() / dollars[place]
        print(f"{f'by question, at most {limit:.2f} in training':44} {outcome:.3f}    {share:.2f}")


def questions_of(part: str) -> list[str]:
    with (HERE / "data" / f"{part}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["input"] for line in lines]


async def outcomes_of(run: str) -> list[tuple[str, float]]:
    """Question and outcome of each decision of a run."""
    store = open_store(STORE)
    try:
        rollouts = await store.rollouts(run, purpose="train")
        tasks = await store.tasks(run, {rollout.task_id for rollout in rollouts})
        return [(tasks[one.task_id].input, one.outcome) for one in rollouts if one.outcome is not None]
    finally:
        await store.close()


def show_thompson(runs: list[str]) -> None:
    """Regret: what the model that is best on all training questions would have given on the ones that were asked."""
    questions = questions_of("train")
    table = table_of(HERE / "data" / "answers.jsonl")
    models = list(table[questions[0]])
    means = {model: np.mean([table[question][model] for question in questions]) for model in models}
    best = max(models, key=lambda model: means[model])
    chance = means[best] - np.mean(list(means.values()))
    regrets = []
    for seed, run in enumerate(runs):
        given = asyncio.run(outcomes_of(run))
        regrets.append(sum(table[question][best] - outcome for question, outcome in given))
        print(f"seed {seed}: regret {regrets[-1]:6.1f} over {len(given)} decisions")
    spread = f"{np.mean(regrets):.1f} ± {np.std(regrets, ddof=1):.1f}"
    print(f"against {best} for all: {spread} (chance: {chance * DECISIONS:.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["contextual", "thompson"])
    parser.add_argument("--features")
    parser.add_argument("--run")
    options = parser.parse_args()
    if options.what == "contextual":
        run = options.run
        if run is None:
            with answering():
                run = train(*([f"algorithm.features={options.features}"] if options.features else []))
        show_contextual(run)
        return
    with answering():
        live = {
            "name": "selection",
            "strategy": "thompson",
            "budget": DECISIONS,
            "batch": BATCH,
            "candidates": load_config("config.yaml").algorithm["candidates"],
        }
        settings = (f"algorithm={json.dumps(live)}", "tasks.held_out_limit=20")
        runs = [train(*settings, f"seed={seed}") for seed in range(SEEDS)]
    show_thompson(runs)


if __name__ == "__main__":
    main()
