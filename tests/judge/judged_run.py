"""Real runs whose rollouts are judged, in a folder of their own."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

from doing import Doing

from agentlightning import Trainer
from agentlightning.config import RewardConfig, RunnerConfig
from agentlightning.records import Rollout
from agentlightning.store import open_store

TASKS = [{"id": f"t{number}", "input": f"task {number}", "expected": "x" * 4} for number in range(4)]


class Agent:
    """Writes one character more with every call; the fourth answer to a task is the expected one."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def __call__(self, question: str) -> str:
        self.calls[question] = self.calls.get(question, 0) + 1
        return "x" * self.calls[question]


def judge_config(base_url: str, folder: Path, **options: Any) -> RewardConfig:
    served = {"model": "judge", "base_url": base_url, "retries": 0, "input_price": 1.0, "output_price": 1.0}
    config = {"model": served, "rubric": "It is long.", "cache": str(folder / "judge"), **options}
    return RewardConfig(name="judge", config=config)


async def collect(run: Any) -> None:
    async with aclosing(run.collect(run.tasks, group_size=4, step=1)) as groups:
        async for _ in groups:
            pass
    run.log({}, step=1)
    await run.evaluate(step=1)


def trainer(folder: Path, rewards: list[Any], body: Any = collect) -> Trainer:
    return Trainer(
        Agent(),
        TASKS,
        rewards,
        Doing(body),
        held_out=TASKS[:1],
        directory=folder / "runs",
        store=url(folder),
        name="run",
        runner=RunnerConfig(concurrency=1, retries=0),
    )


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


async def rollouts_of(folder: Path, run_id: str) -> list[Rollout]:
    store = open_store(url(folder))
    try:
        return await store.rollouts(run_id)
    finally:
        await store.close()


async def metrics_of(folder: Path, run_id: str) -> dict[str, float]:
    store = open_store(url(folder))
    try:
        return {metric.name: metric.value for metric in await store.metrics(run_id)}
    finally:
        await store.close()
