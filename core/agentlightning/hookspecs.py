"""The plugin contract. A plugin is a module, named by an entry point of the group ``agentlightning``,
that implements any of these hooks. Its module imports in milliseconds: what it registers may be given as
``"package.module:attribute"`` and is imported when first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from agentlightning.config import Config
    from agentlightning.records import Rollout, Span, Task
    from agentlightning.share_changes import FailureChange
    from agentlightning.store.base import RunRecord
    from agentlightning.store.promotions import Promotion

hookspec = pluggy.HookspecMarker("agentlightning")
hookimpl = pluggy.HookimplMarker("agentlightning")


class Register(Protocol):
    """Names one thing: ``register("grpo", "agentlightning_grpo.algorithm:GRPO")``."""

    def __call__(self, name: str, target: Any) -> None: ...


class Submit(Protocol):
    """Has a run trained elsewhere, and shows it: ``submit("http://gpu:8080", config, quiet=False)``."""

    def __call__(self, url: str, config: Config, *, quiet: bool) -> int:
        """Gives the exit code of ``agl``. Raises `AgentLightningError` where the run is refused."""


@hookspec
def register_adapters(register: Register) -> None:
    """Register adapters: subclasses of `agentlightning.adapter.Adapter`."""


@hookspec
def register_algorithms(register: Register) -> None:
    """Register algorithms: subclasses of `agentlightning.algorithm.Algorithm`."""


@hookspec
def register_rewards(register: Register) -> None:
    """Register rewards: functions ``(rollout, task)``, or classes with a ``Config`` that make one."""


@hookspec
def register_servers(register: Register) -> None:
    """Register what serves a trained model: subclasses of `agentlightning.serving.ModelServer`."""


@hookspec
def register_routers(register: Register) -> None:
    """Register what chooses a model for each rollout: subclasses of `agentlightning.model_routing.Router`."""


@hookspec
def register_runners(register: Register) -> None:
    """Register runners: subclasses of `agentlightning.runner.Runner`."""


@hookspec
def register_credit(register: Register) -> None:
    """Register credits: subclasses of `agentlightning.credit.Credit`."""


@hookspec
def register_backends(register: Register) -> None:
    """Register backends: subclasses of `agentlightning.backend.Backend`."""


@hookspec
def register_stores(register: Register) -> None:
    """Register stores by URL scheme: callables ``(url) -> Store``."""


@hookspec
def register_submitters(register: Register) -> None:
    """Register what ``agl train --server URL`` hands a run to, by URL scheme: a `Submit`."""


@hookspec
def register_importers(register: Register) -> None:
    """Register what reads the exports of other tools: subclasses of `agentlightning.importers.base.Importer`."""


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of ``agl``: `click.Command` objects."""


@hookspec
def rollout_finished(rollout: Rollout, task: Task, spans: Sequence[Span]) -> None:
    """A rollout has ended, scored (with its group) and written; ``spans`` are those of its last attempt."""


@hookspec
def run_finished(run: RunRecord) -> None:
    """A run has ended; its status says how."""


@hookspec
def promotion_changed(promotion: Promotion) -> None:
    """What a deployed agent is given has changed: by `agl promote` or `agl rollback`, or as a server found a canary
    worse, or good enough."""


@hookspec
def failure_share_changed(change: FailureChange) -> None:
    """A server has noticed that a failure became more frequent or less, beyond chance: once for each change."""
