"""A run goes on from a checkpoint to the same weights, to the bit, with every credit; with one policy and
with two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from credit.made import Call, agent, group, member, tool
from drawn_run import DrawnRun
from safetensors.torch import load_file

from agentlightning import PolicyGradient
from agentlightning.algorithm import Evaluation
from agentlightning.credit import BranchPoint
from agentlightning.records import Purpose, Task
from agentlightning.store.base import Checkpoint
from agentlightning.training_rows import Group, RolloutRows

STEPS, CALLS, ROLES = 2, 3, ("planner", "solver")
CREDITS: list[Any] = [
    "broadcast",
    "discounted",
    "gigpo",
    {"name": "gigpo", "state": "node"},
    {"name": "hgpo", "state": "observation"},
    "gagpo",
    "mt_grpo",
    {"name": "per_agent", "of": "gigpo"},
    "tree",
    {"name": "replay", "count": 2, "points": 1},
]


class Plain(PolicyGradient):
    """What the base does by itself."""


class Drawn(DrawnRun):
    """Whose rollouts make three calls, in turn by two agents, of one policy or one for each; a tool runs after the
    first."""

    def __init__(self, directory: Path, *, policies: Sequence[str], restored: Checkpoint | None = None) -> None:
        super().__init__(directory, restored=restored)
        self.policies = policies

    def _draw(self, task: Task, step: int) -> Group:
        members = [self._run(f"{task.id}.{step}.{sample}", sample % 2, [step, sample]) for sample in range(4)]
        drawn = group(*members, name=f"{task.id}.{step}")
        drawn.task = task
        return drawn

    def _run(self, name: str, outcome: float, seed: list[int], purpose: Purpose = "train") -> RolloutRows:
        rng = np.random.default_rng([*seed, *name.encode()])
        calls = []
        for place in range(CALLS):
            role = ROLES[place % 2]
            prompt = [place, *range(10, 14)]
            answer = rng.integers(0, 250, int(rng.integers(1, 4))).tolist()
            messages = [{"role": "user", "content": f"turn {place}"}]
            calls.append(Call(prompt, answer, float(rng.normal()), agent=role, messages=messages, parent=role))
        spans = [*(agent(role, role, "node") for role in ROLES), tool("search", 1, id=f"{name}/tool")]
        made = member(name, calls, outcome, purpose=purpose, spans=spans)
        for row in made.rows:
            row.policy = self.policies[ROLES.index(str(row.agent)) % len(self.policies)]
            for transition in row.transitions:
                transition.policy = row.policy
        return made

    async def branch(self, points: Sequence[BranchPoint], *, count: int, step: int) -> list[list[RolloutRows]]:
        return [
            [
                self._run(f"{origin.id}@{calls}.{sample}", sample % 2, [step, calls, sample], "branch")
                for sample in range(count)
            ]
            for origin, calls in points
        ]

    async def evaluate(self, *, step: int, **_: Any) -> Evaluation:
        return Evaluation(step=step, tasks=self.held_out, rollouts=[], rewards=[])


async def weights(run: Drawn, model: Path, credit: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Of each saved model, after all steps."""
    several = {name: {"agents": [name]} for name in run.policies} if len(run.policies) > 1 else {}
    section = {
        "model": {"path": str(model), "device": "cpu"},
        "steps": STEPS,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-3,
        "checkpoint_every": 1,
        "credit": credit,
        "policies": several,
    }
    await Plain.from_section(section).run(run)
    return {name: load_file(Path(path) / "model.safetensors") for name, path in run.results.items()}


@pytest.mark.parametrize(
    ("credit", "policies"),
    [*((credit, ("policy",)) for credit in CREDITS), *((credit, ROLES) for credit in CREDITS[-3:])],
    ids=str,
)
async def test_a_run_goes_on_to_the_same_weights(
    tiny_model: Path, tmp_path: Path, credit: Any, policies: Sequence[str]
) -> None:
    whole = Drawn(tmp_path / "whole", policies=policies)
    expected = await weights(whole, tiny_model, credit)
    before = load_file(tiny_model / "model.safetensors")
    assert all(any(not torch.equal(weight, before[name]) for name, weight in one.items()) for one in expected.values())
    assert len(whole.checkpoints) == STEPS
    for checkpoint in whole.checkpoints[:-1]:
        resumed = Drawn(tmp_path / f"from {checkpoint.step}", policies=policies, restored=checkpoint)
        found = await weights(resumed, tiny_model, credit)
        assert found.keys() == expected.keys()
        for model, own in found.items():
            assert all(torch.equal(weight, expected[model][name]) for name, weight in own.items())
