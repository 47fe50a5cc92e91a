"""The ``algorithm`` section of a fine-tuning run."""

from __future__ import annotations

from agentlightning.config import PositiveInt
from agentlightning_policy.optimize import LearningRate
from agentlightning_policy.training import TrainingConfig


class SFTConfig(TrainingConfig, kw_only=True, forbid_unknown_fields=True):
    """What a fine-tuning run can be told, beside what `TrainingConfig` holds.

    Without ``demonstrations`` a step runs ``batch_tasks`` tasks ``group_size`` times each, keeps of every task
    the ``keep`` best rollouts whose reward is at least ``threshold``, and learns them. With it, a JSONL file
    of ``{"messages": […], "tools": […]}``, a step learns the next ``batch_tasks`` demonstrations.
    """

    lr: LearningRate = 1e-5
    keep: PositiveInt = 1
    threshold: float = 1.0
    demonstrations: str | None = None
