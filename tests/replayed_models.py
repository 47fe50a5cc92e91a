"""Models with recorded scores, and a trainer that tries them: a real run and a real store, and no endpoint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drawn_run import DrawnRun

from agentlightning import Task, Trainer, semconv
from agentlightning.algorithm import Evaluation
from agentlightning.model_routing import choice_for, choice_of_rollout
from agentlightning.recording import Recorder, current
from agentlightning.records import (
    AnyResource,
    Failure,
    Generation,
    ModelChoice,
    ModelRouter,
    Reward,
    Rollout,
    Span,
    Usage,
    new_id,
)
from agentlightning.store import open_store
from agentlightning.training_rows import Group, RolloutRows

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


def sevens(text: str) -> list[float]:
    """What tells nothing of the kind of question."""
    return [float(text.split()[1]) % 7]


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


def trainer(folder: Path, *, count: int = 100, reward: Any = by_hardness, seed: int = 0, **options: Any) -> Trainer:
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


SECONDS = {"large": 0.5, "medium": 0.3, "small": 0.1}


class TableRun(DrawnRun):
    """A run whose rollouts are read from the table at once: only what a selection decides is under test."""

    def __init__(self, directory: Path, *, count: int, seed: int = 0) -> None:
        super().__init__(directory)
        tasks = tasks_of(count + HELD_OUT)
        self.tasks, self.held_out, self.seed = tasks[HELD_OUT:], tasks[:HELD_OUT], seed
        self.train = ["solver"]
        self._spans: dict[str, list[Span]] = {}

    async def collect(
        self,
        tasks: Sequence[Task],
        *,
        step: int,
        group_size: int = 1,
        resources: Sequence[AnyResource] = (),
        key: str | None = None,
    ) -> AsyncGenerator[Group, None]:
        self.events.append(f"collect {key}: {[task.id for task in tasks]} with {resources}")
        for task in tasks:
            rollout = self._run(task, resources[0])
            members = [RolloutRows(rollout=rollout, spans=self._spans[rollout.id], rows=[])]
            yield Group(id=task.id, task=task, rollouts=members)

    async def evaluate(self, *, step: int, variant: str = "", **options: Any) -> Evaluation:
        resource = (options.get("resources") or self.published[-1:])[0]
        rollouts = [self._run(task, resource) for task in self.held_out]
        self.events.append(f"evaluate {step} {variant}: {[rollout.output for rollout in rollouts]}")
        return Evaluation(step=step, tasks=self.held_out, rollouts=rollouts, rewards=[])

    async def spans(self, rollout: Rollout) -> list[Span]:
        return self._spans[rollout.id]

    def _run(self, task: Task, resource: AnyResource) -> Rollout:
        assert isinstance(resource, ModelChoice | ModelRouter)
        choice = choice_for(resource, task.input) if isinstance(resource, ModelRouter) else resource
        scores = {**task.metadata["hardness"], **{f"{name}!": value for name, value in task.metadata["kind"].items()}}
        rollout = Rollout(
            id=new_id(),
            run_id="run",
            group_id=task.id,
            task_id=task.id,
            purpose="train",
            status="succeeded",
            output=choice.model,
            rewards=[Reward(name="score", value=scores.get(choice.model, 0.0))],
        )
        self._spans[rollout.id] = [
            Span(
                rollout_id=rollout.id,
                kind="llm",
                name="chat",
                agent=agent,
                started_at=0.0,
                ended_at=SECONDS.get(choice.model, 0.2),
                attributes={semconv.MODEL_CHOICE: choice.name} if isinstance(resource, ModelRouter) else {},
                generation=Generation(
                    model=choice.model,
                    messages=[{"role": "user", "content": task.input}],
                    usage=Usage(input_tokens=1000, output_tokens=100),
                ),
            )
            for agent in ("solver", "judge")
        ]
        return rollout
