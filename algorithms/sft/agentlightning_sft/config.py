"""The ``algorithm`` section of a fine-tuning run."""

from __future__ import annotations

from agentlightning.config import PositiveInt
from agentlightning.policy_gradient import PolicyGradientConfig


class SFTConfig(PolicyGradientConfig, kw_only=True, forbid_unknown_fields=True):
    """What a fine-tuning run can be told, beside what `PolicyGradientConfig` and the backend hold.

    Without ``demonstrations`` a step runs ``batch_tasks`` tasks ``group_size`` times each, keeps of every task
    the ``keep`` best rollouts whose reward is at least ``threshold``, and learns them. With it, a JSONL file
    of ``{"messages": […], "tools": […]}``, a step learns the next ``batch_tasks`` demonstrations.
    """

    keep: PositiveInt = 1
    threshold: float = 1.0
    demonstrations: str | None = None
