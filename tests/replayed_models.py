"""Models with recorded scores, and a trainer that tries them: a real run and a real store, and no endpoint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning import Task, Trainer, semconv
from agentlightning.model_routing import choice_of_rollout
from agentlightning.recording import Recorder, current
from agentlightning.records import Failure, Generation, ModelChoice, ModelRouter, Rollout, Usage
from agentlightning.store import open_store

CANDIDATES = [
    {"model": "large", "input_price": 10.0, "output_price": 30.0},
    {"model": "medium", "input_price": 1.0, "output_price": 3.0},
    {"model": "small", "input_price": 0.1, "output_price": 0.3},
]
RATES = {"large": 0.80, "medium": 0.78, "small": 0.35}
HELD_OUT = 20

asked: Counter[str] = Counter()
"""How often each model was asked."""
gone_after: dict[str, int] = {}
"""Models that do not answer any more when they were asked so often."""


def tasks_of(count: int, seed: int = 0) -> list[Task]:
    """Questions of two kinds: every model can do sums, and only the large one knows cities."""
    rng = np.random.default_rng(seed)
    tasks = []
    for number in range(count):
        kind = ("sum", "city")[int(rng.integers(2))]
        hardness = rng.random()
        right = {name: float(hardness < rate) for name, rate in RATES.items()}
        by_kind = {"large": 1.0, "medium": float(kind == "sum"), "small": float(kind == "sum" and hardness < 0.9)}
        tasks.append(Task(id=str(number), input=f"{kind} {number}", metadata={"hardness": right, "kind": by_kind}))
    return tasks


def features(text: str) -> list[float]:
    """Which kind of question it is."""
    return [float(text.startswith("sum")), float(text.startswith("city"))]


async def agent(question: str) -> str:
    """Answers with the name of the model that it was given, chosen or by a router."""
    recorder = current()
    assert recorder is not None
    call = recorder.start("llm", "chat", agent="solver")
    model = _chosen(recorder, question, call.attributes)
    asked[model] += 1
    call.generation = Generation(
        model=model,
        messages=[{"role": "user", "content": question}],
        usage=Usage(input_tokens=1000, output_tokens=100),
    )
    if asked[model] > gone_after.get(model, 10**9):
        call.failure = Failure(type="not_found", message=f"there is no {model}", fault="infrastructure")
    if model == "slow":
        await asyncio.sleep(0.02)
    recorder.end(call)
    return model


def _chosen(recorder: Recorder, question: str, attributes: dict[str, Any]) -> str:
    resource = recorder.resource(ModelRouter, "solver")
    if resource is None:
        choice = recorder.resource(ModelChoice, "solver")
        assert choice is not None
        return choice.model
    body = {"messages": [{"role": "user", "content": question}]}
    routed = choice_of_rollout(recorder, resource, body, "chat")
    attributes[semconv.MODEL_CHOICE] = routed.name
    return routed.model


def by_hardness(rollout: Rollout, task: Task) -> float:
    score: float = task.metadata["hardness"].get(rollout.output, 0.0)
    return score


def by_kind(rollout: Rollout, task: Task) -> float:
    score: float = task.metadata["kind"][rollout.output]
    return score


def trainer(folder: Path, *, count: int = 120, reward: Any = by_hardness, seed: int = 0, **options: Any) -> Trainer:
    tasks = tasks_of(count + HELD_OUT)
    return Trainer(
        agent,
        tasks[HELD_OUT:],
        reward,
        {"name": "selection", "candidates": CANDIDATES, **options},
        held_out=tasks[:HELD_OUT],
        train=["solver"],
        store=f"sqlite:///{folder}/runs.db",
        directory=folder,
        seed=seed,
    )


def train(folder: Path, **options: Any) -> Any:
    return trainer(folder, **options).fit()


def recorded(folder: Path, run_id: str) -> tuple[dict[tuple[int, str], float], list[Rollout]]:
    """Metrics by step and name, and the training rollouts of a run."""

    async def read() -> tuple[Sequence[Any], list[Rollout]]:
        store = open_store(f"sqlite:///{folder}/runs.db")
        try:
            return await store.metrics(run_id), await store.rollouts(run_id, purpose="train")
        finally:
            await store.close()

    metrics, rollouts = asyncio.run(read())
    return {(metric.step, metric.name): metric.value for metric in metrics}, list(rollouts)


def of_the_models(result: Any) -> dict[str, str]:
    """What came of a run, but for where its files are."""
    paths = ("front table", "front picture", "curve")
    return {name: text for name, text in result.results.items() if name not in paths}
