"""The backend ``torch``: weights in this process, trained by AdamW and served by the embedded engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentlightning.backend import Backend
from agentlightning.errors import PolicyError
from agentlightning.loss import LossConfig
from agentlightning.records import Policy
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.chat import Chat, template_shows
from agentlightning_gateway.protocol import ApiError
from agentlightning_policy.compute import compute_async
from agentlightning_policy.config import ModelConfig, TorchConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer
from agentlightning_policy.update import PolicyUpdater

UNCUT: dict[str, Any] = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "logit_bias": {},
    "unconstrained": True,
}
"""Set on every redirected call, whatever the agent asks for: tokens are drawn from the policy's own distribution, which
is the one that is trained, and whose log-probabilities are recorded."""

_OTHER_TEMPLATE = "give another as model.chat_template (a Jinja file, or hermes-tools for a model that writes ChatML)"


class TorchBackend(Backend):
    """Raises `PolicyError` where the model cannot be loaded or served, or its chat template shows no messages."""

    Config = TorchConfig
    config: TorchConfig
    policy: PolicyModel
    optimizer: Optimizer

    engine: Engine | None = None
    """What serves it; None before `start` and after `aclose`."""

    async def start(self) -> None:
        self.policy = await compute_async(_load, self.config.model, self.seed)
        if self.config.gradient_checkpointing:
            self.policy.keep_layer_inputs()
        self.optimizer = await compute_async(Optimizer, self.policy, self.config, self.max_updates)
        self._updater = PolicyUpdater(
            self.policy,
            self.optimizer,
            seed=self.seed,
            max_tokens=self.config.max_tokens_per_micro_batch,
            phase=self.phase,
        )
        settings = self.config.engine
        engine = Engine(self.policy, msgspec.structs.replace(settings, seed=settings.seed + self.seed), name=self.name)
        await engine.start()
        self.engine = engine

    async def publish(self) -> Policy:
        if self.engine is None:
            raise PolicyError(f"the policy {self.name} is not served: the backend has not been started")
        return self.engine.resource(self.name, **UNCUT)

    async def logprobs(self, rows: Sequence[TrainingRow], *, reference: bool = False) -> list[np.ndarray]:
        return await compute_async(self._updater.logprobs, rows, reference=reference)

    async def update(
        self,
        groups: Sequence[Sequence[TrainingRow]],
        loss: LossConfig,
        *,
        step: int,
        epochs: int = 1,
        mini_batches: int = 1,
    ) -> dict[str, float]:
        return await compute_async(
            self._updater.update, groups, loss, step=step, epochs=epochs, mini_batches=mini_batches
        )

    def save(self, folder: Path) -> None:
        self.optimizer.save(folder)

    def restore(self, folder: Path) -> None:
        self.optimizer.load(folder)

    def save_model(self, folder: Path) -> None:
        """A plain Hugging Face folder, adapters merged in."""
        self.policy.save(folder)

    async def aclose(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.stop()
        for name in ("policy", "optimizer", "_updater"):
            vars(self).pop(name, None)

    @property
    def tokenizer(self) -> Any:
        return self.policy.tokenizer


def _load(config: ModelConfig, seed: int) -> PolicyModel:
    policy = PolicyModel.load(config, seed=seed)
    try:
        shows = template_shows(Chat(policy.tokenizer, ()))
    except ApiError as error:
        raise PolicyError(f"the chat template of {config.path} takes no chat: {error}; {_OTHER_TEMPLATE}") from error
    if not shows.messages:
        raise PolicyError(
            f"the chat template of {config.path} shows the model no messages, so every prompt is the same; "
            f"{_OTHER_TEMPLATE}"
        )
    return policy
