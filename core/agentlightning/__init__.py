"""Agent Lightning, embedded: make any LLM agent learn from its own runs.

For those who train: `Trainer`. For those who want to say more from inside an agent: `reward`, `annotate`
and `span`, which do nothing outside a rollout, and `prompt`, for one that may be tuned. For those who record a deployed
agent: `attach`, `detach`, `live` and `current_rollout`. For those who write plugins: `hookimpl`, `PolicyGradient`
and `LossConfig`, `Algorithm`, `Backend`, `Credit`, `Adapter` and the records.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentlightning.adapter import Adapter
    from agentlightning.algorithm import Algorithm
    from agentlightning.backend import Backend
    from agentlightning.credit import Credit
    from agentlightning.errors import AgentLightningError
    from agentlightning.hookspecs import hookimpl
    from agentlightning.loss import LossConfig
    from agentlightning.online.attach import attach, detach
    from agentlightning.policy_gradient import PolicyGradient
    from agentlightning.recording import annotate, current_rollout, live, prompt, reward, span
    from agentlightning.records import Failure, Reward, Rollout, Span, Task
    from agentlightning.trainer import FitResult, Trainer

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter",
    "Algorithm": "algorithm",
    "AgentLightningError": "errors",
    "Backend": "backend",
    "Credit": "credit",
    "LossConfig": "loss",
    "PolicyGradient": "policy_gradient",
    "hookimpl": "hookspecs",
    "Failure": "records",
    "Reward": "records",
    "Rollout": "records",
    "Span": "records",
    "Task": "records",
    "annotate": "recording",
    "attach": "online.attach",
    "current_rollout": "recording",
    "detach": "online.attach",
    "live": "recording",
    "prompt": "recording",
    "reward": "recording",
    "span": "recording",
    "FitResult": "trainer",
    "Trainer": "trainer",
}

__all__ = [
    "Adapter",
    "AgentLightningError",
    "Algorithm",
    "Backend",
    "Credit",
    "Failure",
    "FitResult",
    "LossConfig",
    "PolicyGradient",
    "Reward",
    "Rollout",
    "Span",
    "Task",
    "Trainer",
    "annotate",
    "attach",
    "current_rollout",
    "detach",
    "hookimpl",
    "live",
    "prompt",
    "reward",
    "span",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentlightning' has no attribute {name!r}")
    return getattr(import_module(f"agentlightning.{home}"), name)
