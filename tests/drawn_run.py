"""A run made by hand: its rollouts are drawn, not run, so that only learning is under test."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning.algorithm import Evaluation
from agentlightning.records import AnyResource, Policy, Purpose, Reward, Rollout, Span, Task
from agentlightning.store.base import Checkpoint
from agentlightning.training_rows import Group, RolloutRows, TrainingRow, Transition

VOCABULARY = 250


def row(rollout: str, prompt: list[int], answer: list[int], *, temperature: float = 1.0) -> TrainingRow:
    """A row of one transition, without an advantage."""
    mask = np.array([False] * len(prompt) + [True] * len(answer))
    return TrainingRow(
        rollout_id=rollout,
        policy="policy",
        token_ids=np.array(prompt + answer, np.int32),
        mask=mask,
        logprobs=np.where(mask, -5.0, 0.0).astype(np.float32),
        advantages=np.where(mask, np.nan, 0.0).astype(np.float32),
        temperature=temperature,
        transitions=[Transition(span_id="s", policy="policy", start=len(prompt), end=len(mask))],
    )


def group(name: str, rewards: Sequence[float], *, rows: Sequence[int] | None = None, seed: int = 0) -> Group:
    """A group whose i-th rollout has ``rows[i]`` rows (1 by default) and the reward ``rewards[i]``."""
    rng = np.random.default_rng([seed, *name.encode()])
    prompt = [*range(20), *rng.integers(0, VOCABULARY, 6).tolist()]
    members = []
    for sample, reward in enumerate(rewards):
        rollout = Rollout(
            id=f"{name}.{sample}",
            run_id="run",
            group_id=name,
            task_id=name,
            purpose="train",
            step=1,
            sample=sample,
            status="succeeded",
            rewards=[Reward(name="score", value=reward)],
        )
        own = [
            row(rollout.id, prompt, rng.integers(0, VOCABULARY, int(rng.integers(2, 8))).tolist())
            for _ in range(rows[sample] if rows else 1)
        ]
        members.append(RolloutRows(rollout=rollout, rows=own))
    return Group(id=name, task=Task(id=name, input=""), rollouts=members)


class DrawnRun:
    """`agentlightning.algorithm.Run`, whose collections are drawn by step and whose evaluations are noted.
    ``validations`` are their means, by step."""

    def __init__(self, directory: Path, *, restored: Checkpoint | None = None, group_size: int = 4) -> None:
        self.id = "run"
        self.seed = 7
        self.directory = directory
        self.tasks = [Task(id=f"task{place}", input="") for place in range(3)]
        self.held_out = [Task(id="held out", input="")]
        self.train = ["*"]
        self.restored = restored
        self.events: list[str] = []
        self.published: list[AnyResource] = []
        self.logged: dict[int, dict[str, float]] = {}
        self.results: dict[str, str] = {}
        self.phases: list[tuple[str, int, int]] = []
        self.checkpoints: list[Checkpoint] = []
        self.drawn: Callable[[Task, int], Group] = self._draw
        self.validations: dict[int, float | None] = {}

    def set_apart(self, count: int) -> list[Task]:
        self.tasks, apart = self.tasks[count:], self.tasks[:count]
        return apart

    def batches(self, size: int) -> Callable[[int], list[Task]]:
        return lambda step: [self.tasks[((step - 1) * size + place) % len(self.tasks)] for place in range(size)]

    def _draw(self, task: Task, step: int) -> Group:
        rewards = np.random.default_rng([step, *task.id.encode()]).integers(0, 2, 4).astype(float)
        drawn = group(f"{task.id}.{step}", [1.0, 0.0, *rewards[2:].tolist()], seed=step)
        drawn.task = task
        return drawn

    async def collect(
        self,
        tasks: Sequence[Task],
        *,
        step: int,
        group_size: int = 1,
        resources: Sequence[AnyResource] = (),
        key: str | None = None,
    ) -> AsyncGenerator[Group, None]:
        self.events.append(f"collect {step}")
        for task in tasks:
            yield self.drawn(task, step)

    async def check(self) -> None:
        self.events.append("check")

    async def evaluate(
        self,
        *,
        step: int,
        variant: str = "",
        resources: Sequence[AnyResource] = (),
        tasks: Sequence[Task] | None = None,
        samples: int = 1,
        purpose: Purpose = "evaluate",
    ) -> Evaluation:
        (resource,) = resources
        assert isinstance(resource, Policy)
        if purpose == "validate":
            assert tasks is not None
            mean = self.validations[step]
            names = [task.id for task in tasks]
            self.events.append(f"validate {step} {names} at {resource.sampling['temperature']} x{samples}")
            return Evaluation(step=step, purpose=purpose, tasks=list(tasks), rollouts=[], rewards=[mean] * len(tasks))
        self.events.append(f"evaluate {step} {variant} at {resource.sampling['temperature']} x{samples}")
        return Evaluation(step=step, variant=variant, tasks=self.held_out, rollouts=[], rewards=[])

    async def spans(self, rollout: Rollout) -> list[Span]:
        return []

    async def publish(self, resource: AnyResource) -> None:
        self.published.append(resource)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.logged.setdefault(step, {}).update(metrics)

    def progress(self, *, step: int, steps: int) -> None:
        self.events.append(f"step {step} of {steps}")

    def stopped(self, *, step: int, reason: str) -> None:
        self.results["stopped"] = f"after step {step}: {reason}"

    def phase(self, name: str, *, done: int = 0, total: int = 0) -> None:
        self.phases.append((name, done, total))

    async def checkpoint(
        self, step: int, state: Mapping[str, Any], write: Callable[[Path], None] | None = None
    ) -> None:
        folder = self.directory / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        assert write is not None
        write(folder)
        self.checkpoints.append(Checkpoint(run_id=self.id, step=step, state=dict(state), path=str(folder)))

    def result(self, name: str, value: str) -> None:
        self.results[name] = value
