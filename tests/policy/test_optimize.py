"""The optimizer's rate over a run."""

from __future__ import annotations

import pytest
import torch

from agentlightning_policy.config import OptimizerConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer


def rates(policy: PolicyModel, steps: int, **fields: object) -> list[float]:
    """The rate of each of the run's steps."""
    optimizer = Optimizer(policy, OptimizerConfig(lr=1.0, **fields), total_steps=steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.lr)
        for weight in policy.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
    return found


def test_the_rate_is_constant_unless_said_otherwise(policy: PolicyModel) -> None:
    assert rates(policy, 3) == [1.0, 1.0, 1.0]


def test_it_rises_over_the_warm_up(policy: PolicyModel) -> None:
    assert rates(policy, 5, warmup=3) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_linear_schedule_falls_towards_zero_at_the_end_of_the_run(policy: PolicyModel) -> None:
    assert rates(policy, 4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]


def test_a_linear_schedule_begins_after_the_warm_up(policy: PolicyModel) -> None:
    assert rates(policy, 5, schedule="linear", warmup=1) == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])
