"""Whole runs whose agent runs in other processes, which know nothing of rewards and of training."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning import Trainer
from agentlightning.config import RunnerConfig
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.records import Rollout, Span, Task
from agentlightning.store import open_store

TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(6)]
CLIENTS = RunnerConfig(name="clients", config={"wait_seconds": 60})


class Plain(PolicyGradient):
    """What the base does by itself."""


def heads(rollout: Rollout, task: Task) -> float:
    """Lies in a module that no worker can import."""
    return float(rollout.output["answer"] == "heads")


def length(rollout: Rollout, task: Task) -> float:
    return float(len(rollout.output["answer"]) % 2)


def spans_of(url: str, rollouts: Sequence[Rollout]) -> list[Span]:
    async def read() -> list[Span]:
        store = open_store(url)
        try:
            return [span for rollout in rollouts for span in (await store.rollout_with_spans(rollout.id))[1]]
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_run_learns_from_what_two_workers_ran_that_know_nothing_of_its_reward(
    folder: Path, url: str, start_worker: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    workers = [start_worker("elsewhere:one", "--concurrency", "2") for _ in range(2)]
    algorithm = {
        "name": f"{__name__}:Plain",
        "backend": "bandit:BanditBackend",
        "answers": ["heads", "tails"],
        "lr": 2.0,
        "steps": 4,
        "batch_tasks": 4,
        "group_size": 8,
    }
    result = Trainer(
        "elsewhere:one",
        TASKS,
        heads,
        algorithm,
        held_out=TASKS[:1],
        runner=CLIENTS,
        store=url,
        directory=folder / "runs",
    ).fit()
    preferences = np.load(Path(result.results["model"]) / "preferences.npy")
    assert preferences[0] > 0 > preferences[1]
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0], (folder / "work.txt").read_text()
    rollouts = asyncio.run(stored(result.run_id))
    assert {rollout.status for rollout in rollouts} == {"succeeded"}
    assert {rollout.output["worker"] for rollout in rollouts} <= {worker.pid for worker in workers}
    assert all(len(rollout.rewards) == 1 for rollout in rollouts)
    assert "elsewhere" not in sys.modules


def test_the_tokens_that_workers_recorded_are_exactly_what_is_trained(
    folder: Path, url: str, tiny_model: Path, start_worker: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    for _ in range(2):
        start_worker("elsewhere:one")
    algorithm = {
        "name": "grpo",
        "model": {"path": str(tiny_model), "device": "cpu"},
        "steps": 2,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-3,
    }
    result = Trainer(
        "elsewhere:one",
        TASKS,
        length,
        algorithm,
        held_out=TASKS[:2],
        runner=CLIENTS,
        store=url,
        directory=folder / "runs",
    ).fit()
    trained = asyncio.run(stored(result.run_id, purpose="train"))
    assert [rollout.status for rollout in trained] == ["succeeded"] * 16
    calls = [span.generation for span in spans_of(url, trained) if span.generation is not None]
    assert [call.provenance for call in calls] == ["exact"] * 16
    assert {call.policy_version for call in calls} == {0, 1}

    async def metrics() -> dict[str, list[float]]:
        store = open_store(url)
        try:
            found: dict[str, list[float]] = {}
            for metric in await store.metrics(result.run_id):
                found.setdefault(metric.name, []).append(metric.value)
            return found
        finally:
            await store.close()

    logged = asyncio.run(metrics())
    assert len(logged["loss"]) == 2
    assert max(logged["sampler_mismatch_max"]) < 1e-4, "the trainer's log-probabilities are those of the sampled tokens"
