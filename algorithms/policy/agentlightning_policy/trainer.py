"""What every backend that trains in this process shares: weights, AdamW, updates, checkpoints. Who serves the weights,
and how the next version gets there, is each backend's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning.backend import Backend
from agentlightning.errors import PolicyError
from agentlightning.loss import LossConfig
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.chat import Chat, template_shows
from agentlightning_gateway.protocol import ApiError
from agentlightning_policy.compute import compute_async
from agentlightning_policy.config import ModelConfig, TrainerConfig
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


class TorchTrainer(Backend):
    """A backend whose weights are trained here: a subclass serves them (`serve`, `stop_serving`) and publishes them.

    Raises `PolicyError` where the model cannot be loaded, or its chat template shows no messages.
    """

    Config = TrainerConfig
    config: TrainerConfig
    policy: PolicyModel
    optimizer: Optimizer

    @abstractmethod
    async def serve(self) -> None:
        """Begins to serve the weights that were loaded. Raises `PolicyError` where it cannot."""

    @abstractmethod
    async def stop_serving(self) -> None:
        """Ends that. Safe to call twice, and after a `serve` that failed."""

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
        await self.serve()

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
        await self.stop_serving()
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
