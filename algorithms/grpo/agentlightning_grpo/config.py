"""The ``algorithm`` section of a GRPO run."""

from __future__ import annotations

from typing import Any

from agentlightning.config import Fraction, NonNegativeInt
from agentlightning.policy_gradient import PolicyGradientConfig


class GRPOConfig(PolicyGradientConfig, kw_only=True, forbid_unknown_fields=True):
    """What a GRPO run can be told, beside what `PolicyGradientConfig` and the backend hold.

    ``preset`` names loss, aggregation and advantage (`agentlightning_grpo.presets`); ``loss`` and
    ``advantage`` replace single fields of it (`LossConfig`, `AdvantageConfig`). ``replay`` is the share of a step's
    tasks, at most, that are earlier ones whose rewards spread most. A task whose rollouts all earned the same rests:
    such an earlier one takes its place, the next ``rest`` times that it comes up (`agentlightning_grpo.curriculum`).
    """

    preset: str = "trl-1.16/dapo"
    loss: dict[str, Any] = {}
    advantage: dict[str, Any] = {}
    replay: Fraction = 0.0
    rest: NonNegativeInt = 0
