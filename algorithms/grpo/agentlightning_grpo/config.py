"""The ``algorithm`` section of a GRPO run."""

from __future__ import annotations

from typing import Any

import msgspec

from agentlightning_policy.config import EngineConfig, ModelConfig
from agentlightning_policy.optimize import OptimizerConfig


class EvaluateConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How the held-out tasks are run before and after training, and every ``every`` steps (0: never between).

    Each task is run ``samples`` times at the training temperature (variant ``sampled``), and once with
    temperature 0 (variant ``greedy``), which ``greedy`` can switch off.
    """

    samples: int = 1
    greedy: bool = True
    every: int = 0


class GRPOConfig(OptimizerConfig, kw_only=True, forbid_unknown_fields=True):
    """What a GRPO run can be told; the optimizer's fields stand beside these.

    ``preset`` names loss, aggregation and advantage (`agentlightning_grpo.presets`); ``loss`` and
    ``advantage`` replace single fields of it. A step takes ``batch_tasks`` tasks and runs each
    ``group_size`` times at ``temperature``, then goes over the groups ``epochs`` times, each time in
    ``mini_batches`` optimizer steps. A micro-batch holds at most ``max_tokens_per_micro_batch`` distinct tokens
    (shared prefixes count once). A checkpoint is made every ``checkpoint_every`` steps (0: never).
    """

    model: ModelConfig
    engine: EngineConfig = msgspec.field(default_factory=EngineConfig)
    preset: str = "trl-1.16/dapo"
    loss: dict[str, Any] = {}
    advantage: dict[str, Any] = {}
    steps: int = 100
    batch_tasks: int = 8
    group_size: int = 8
    temperature: float = 1.0
    epochs: int = 1
    mini_batches: int = 1
    max_tokens_per_micro_batch: int = 2048
    checkpoint_every: int = 10
    evaluate: EvaluateConfig = msgspec.field(default_factory=EvaluateConfig)
