# TO THE TRAINING HELPER, from the lead: I overwrote your uncommitted optimize.py by mistake at 04:50 (I thought you were stuck). Please write yours back from what you have, commit at once, and go on. Sorry.
"""Steps of AdamW on a policy's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file

from agentlightning.errors import AlgorithmError, PolicyError
from agentlightning_policy.model import PolicyModel


class OptimizerConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """AdamW (Loshchilov and Hutter 2019) with a linear warm-up and gradient clipping by global norm."""

    lr: float = 1e-6
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0


class Optimizer:
    """Holds the moments; the gradients are those that the caller has summed up in the policy's parameters."""

    def __init__(self, policy: PolicyModel, config: OptimizerConfig) -> None:
        self.config = config
        self._policy = policy
        self._steps = 0
        self._adamw = torch.optim.AdamW(
            policy.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.config.lr * min(1.0, (self._steps + 1) / (self.config.warmup_steps + 1))

    def step(self) -> float:
        """Clips the gradients, changes the weights, clears the gradients; returns the norm before clipping.

        Raises `AlgorithmError`, and changes nothing, when a gradient is not finite. Call it inside
        `PolicyModel.updating`.
        """
        norm = float(torch.nn.utils.clip_grad_norm_(self._policy.parameters(), self.config.max_grad_norm))
        if not torch.isfinite(torch.tensor(norm)):
            self._adamw.zero_grad(set_to_none=True)
            raise AlgorithmError(f"the gradient's norm is {norm} at optimizer step {self._steps + 1}: lower the lr")
        for group in self._adamw.param_groups:
            group["lr"] = self.lr
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        self._steps += 1
        return norm

    def save(self, folder: Path) -> None:
        """Writes weights and moments: all that the next step depends on."""
        save_file(
            {name: weight.contiguous() for name, weight in self._policy.state().items()}, folder / "weights.safetensors"
        )
        torch.save({"steps": self._steps, "adamw": self._adamw.state_dict()}, folder / "optimizer.pt")

    def load(self, folder: Path, *, version: int) -> None:
        """Takes back what `save` wrote, the weights as ``version``. Raises `PolicyError`."""
        try:
            weights = load_file(folder / "weights.safetensors", device=str(self._policy.device))
            state: dict[str, Any] = torch.load(folder / "optimizer.pt", weights_only=True)
        except (OSError, RuntimeError) as error:
            raise PolicyError(f"the checkpoint in {folder} cannot be read: {error}") from error
        self._policy.load_state(weights, version=version)
        self._adamw.load_state_dict(state["adamw"])
        self._steps = int(state["steps"])
