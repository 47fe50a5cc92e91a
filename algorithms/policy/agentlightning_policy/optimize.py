"""AdamW over the policy's weights, with gradient clipping and a warm-up, resumable to the bit."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agentlightning.errors import AlgorithmError, PolicyError
from agentlightning_policy.config import OptimizerConfig
from agentlightning_policy.model import PolicyModel


class Optimizer:
    """Turns the gradients that lie on the policy's weights into its next version. ``total_steps`` is how many
    optimizer steps the run makes at most: where a falling rate reaches 0.

    Weights in bfloat16 are trained as copies in float32 (Micikevicius et al. 2018), on which their gradients add up: a
    step is far smaller than what bfloat16 can tell apart, and so is what one micro-batch of many adds; both would be
    lost. They are taken from the policy as they arise: it has one optimizer.
    """

    def __init__(self, policy: PolicyModel, config: OptimizerConfig, total_steps: int) -> None:
        self.policy = policy
        self.config = config
        self.total_steps = total_steps
        self.steps = 0
        self.last_lr = self.lr
        """The learning rate of the last step made."""
        self._parameters = policy.parameters()
        self._trained = [
            weight if weight.dtype == torch.float32 else nn.Parameter(weight.detach().float())
            for weight in self._parameters
        ]
        for weight, trained in self._copies():
            weight.register_post_accumulate_grad_hook(functools.partial(_move_gradient, trained))
        self._adamw = torch.optim.AdamW(
            self._trained,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=policy.device.type in ("cpu", "cuda"),  # one pass over weights, gradients and moments
        )

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        warmup = self.config.warmup
        if self.steps < warmup or self.config.schedule == "constant":
            return self.config.lr * min(1.0, (self.steps + 1) / (warmup + 1))
        left = max(0.0, (self.total_steps - self.steps) / max(self.total_steps - warmup, 1))
        return self.config.lr * (left if self.config.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2)

    def step(self) -> float:
        """One step on the gradients there are, which are cleared; returns their norm before clipping.

        Raises `AlgorithmError` when it is not finite, with the weights as they were.
        """
        for weight, trained in self._copies():
            _move_gradient(trained, weight)
        gradients = [weight.grad for weight in self._trained if weight.grad is not None]
        total = nn.utils.get_total_norm(gradients)
        norm = float(total)
        if not math.isfinite(norm):
            self.clear()
            raise AlgorithmError(
                f"the gradient's norm is {norm} at optimizer step {self.steps + 1}: lower lr, or train in float32"
            )
        if norm > self.config.max_grad_norm:
            nn.utils.clip_grads_with_norm_(self._trained, self.config.max_grad_norm, total)
        self.last_lr = self.lr
        for group in self._adamw.param_groups:
            group["lr"] = self.last_lr
        with self.policy.updating():
            self._adamw.step()
            self._write_copies()
        self.steps += 1
        self.clear()
        return norm

    def clear(self) -> None:
        """Forgets the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    def _copies(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """The weights that are trained as copies, each with its own."""
        pairs = zip(self._parameters, self._trained, strict=True)
        return [(weight, trained) for weight, trained in pairs if weight is not trained]

    @torch.no_grad()
    def _write_copies(self) -> None:
        for weight, trained in self._copies():
            weight.copy_(trained)

    def save(self, folder: Path) -> None:
        """Writes the trained weights and all else that the next step depends on."""
        weights = {name: weight.contiguous() for name, weight in self.policy.state().items()}
        save_file(weights, folder / "weights.safetensors")
        state = {
            "steps": self.steps,
            "version": self.policy.version,
            "adamw": self._adamw.state_dict(),
            "copies": [trained.detach() for _, trained in self._copies()],
        }
        torch.save(state, folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        """Takes back what `save` wrote, with the policy's version. Raises `PolicyError` where it cannot."""
        try:
            weights = load_file(folder / "weights.safetensors")
            state: dict[str, Any] = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise PolicyError(
                f"the checkpoint in {folder} cannot be read, it is damaged ({first}): put back a copy of it, or start "
                "a new run without --resume"
            ) from error
        self.policy.load_state(weights, version=state["version"])
        self._adamw.load_state_dict(state["adamw"])
        with torch.no_grad():
            copies = self._copies()
            for (_, trained), kept in zip(copies, state.get("copies", [weight for weight, _ in copies]), strict=True):
                trained.copy_(kept)
        self.steps = state["steps"]


def _move_gradient(copy: nn.Parameter, weight: Tensor) -> None:
    """Adds the gradient of a weight to that of its copy in float32, and clears it."""
    if weight.grad is not None:
        copy.grad = weight.grad.float() if copy.grad is None else copy.grad.add_(weight.grad)
        weight.grad = None


def check_finite(loss: Tensor, where: str) -> Tensor:
    """The loss as it is. Raises `AlgorithmError`, saying ``where``, when it is not finite."""
    if not torch.isfinite(loss):
        raise AlgorithmError(f"{where}: the loss is {float(loss.detach())}; lower lr, or train in float32")
    return loss
