"""What the held-out tasks gave in a run, measure by measure: ``python measures.py RUN``."""

import asyncio
import sys
from statistics import mean

from agentlightning.config import defaults
from agentlightning.records import Rollout
from agentlightning.store import open_store

MEASURES = {
    "answer F1": "answer.f1",
    "exact": "answer.exact",
    "citation F1": "citations.f1",
    "precision": "citations.precision",
    "recall": "citations.recall",
}


async def evaluations(run: str) -> dict[tuple[str, int], list[Rollout]]:
    """The held-out rollouts of a run, by variant and step."""
    store = open_store(defaults.STORE)
    try:
        found: dict[tuple[str, int], list[Rollout]] = {}
        for rollout in await store.rollouts(run, purpose="evaluate"):
            found.setdefault((rollout.variant, rollout.step), []).append(rollout)
        return found
    finally:
        await store.close()


def mean_of(rollouts: list[Rollout], name: str) -> str:
    values = [part.value for one in rollouts for part in one.rewards if part.name == name and part.value is not None]
    return f"{mean(values):.3f}" if values else "–"


def main() -> None:
    print(f"| held out, after step | rollouts | {' | '.join(MEASURES)} |\n|{' --- |' * (len(MEASURES) + 2)}")
    for (variant, step), rollouts in sorted(asyncio.run(evaluations(sys.argv[1])).items()):
        cells = [mean_of(rollouts, name) for name in MEASURES.values()]
        print(f"| {variant}, {step} | {len(rollouts)} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
