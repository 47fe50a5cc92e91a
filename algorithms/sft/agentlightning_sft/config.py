"""The ``algorithm`` section of a fine-tuning run."""

from __future__ import annotations

from agentlightning.config import PositiveInt
from agentlightning.policy_gradient import PolicyGradientConfig
from agentlightning.recorded import FromLive


class SFTConfig(PolicyGradientConfig, kw_only=True, forbid_unknown_fields=True):
    """What a fine-tuning run can be told, beside what `PolicyGradientConfig` and the backend hold.

    Without ``demonstrations`` a step runs ``batch_tasks`` tasks ``group_size`` times each, keeps of every task
    the ``keep`` best rollouts whose reward is at least ``threshold``, and learns them. With it, a JSONL file
    of ``{"messages": […], "tools": […]}``, a step learns the next ``batch_tasks`` demonstrations. With ``from_live``
    it learns the next ``batch_tasks`` of the recorded rollouts whose outcome is at least ``threshold``, or of the
    ``top`` share.
    """

    keep: PositiveInt = 1
    threshold: float = 1.0
    demonstrations: str | None = None
    from_live: FromLive | None = None
