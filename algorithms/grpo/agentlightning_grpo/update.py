"""One step's update of the policy: rows → micro-batches → loss → optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from agentlightning.records import Group, TrainingRow
from agentlightning_grpo.losses import LossConfig, Totals, policy_loss
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.optimize import finite
from agentlightning_policy.training import Training


@dataclass
class _Sums:
    """What is added up over the micro-batches of a step, for its log."""

    loss: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    entropy: float = 0.0
    mismatch: float = 0.0
    mismatch_max: float = 0.0
    tokens: int = 0
    norms: tuple[float, ...] = ()


class Learner:
    """Updates the policy on a step's groups, in the same way whenever the groups are the same.

    With one optimizer step per collection the old log-probabilities are the current ones, so nothing is
    computed twice and ρ is 1 (as TRL does). With more, they are computed first.
    """

    def __init__(
        self,
        training: Training,
        loss: LossConfig,
    ) -> None:
        self.policy = training.policy
        self.optimizer = training.optimizer
        self.loss = loss
        self._training = training
        self._config = training.config

    def update(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Goes over the groups and changes the weights; returns the step's metrics.

        Groups without an advantage have no part in the policy loss and are not computed, but their tokens and
        sequences count in the means. Raises `AlgorithmError` when the loss or its gradient is not finite.
        """
        used = [group for group in groups if self._is_used(group)]
        if not used:
            return {"lr": self.optimizer.last_lr, "optimizer_steps": 0}
        every = [row for group in used for row in group.rows]
        old = None
        if self._config.epochs * self._config.mini_batches > 1:
            old = self._logprobs(self.policy.module, every)
        reference = None
        if self.loss.beta != 0:
            with self.policy.frozen_reference() as module:
                reference = self._logprobs(module, every)
        sums = _Sums()
        with self._training.learning(step):
            for epoch in range(self._config.epochs):
                order = np.random.default_rng([self._training.run.seed, step, epoch]).permutation(len(groups))
                for part in np.array_split(order, min(self._config.mini_batches, len(groups))):
                    self._optimizer_step([groups[int(place)] for place in part], old, reference, sums, step)
        return self._metrics(sums)

    def _is_used(self, group: Group) -> bool:
        return group.has_signal or (bool(group.rows) and self.loss.beta != 0)

    def _optimizer_step(
        self,
        groups: Sequence[Group],
        old: dict[int, np.ndarray] | None,
        reference: dict[int, np.ndarray] | None,
        sums: _Sums,
        step: int,
    ) -> None:
        used = [row for group in groups if self._is_used(group) for row in group.rows]
        if not used:
            return
        counted = [row for group in groups for row in group.rows]
        totals = Totals(sequences=len(counted), tokens=sum(row.trained_tokens for row in counted))
        device = self.policy.device
        for batch in self._training.micro_batches(used):
            current = token_logprobs(self.policy.module, batch)
            before = current.logprobs.detach()
            if old is not None:
                before = batch.pad([old[id(row)] for row in batch.rows]).to(device)
            mask, sampled = batch.mask.to(device), batch.sampler_logprobs.to(device)
            output = policy_loss(
                current.logprobs,
                before,
                batch.advantages.to(device),
                mask,
                self.loss,
                totals,
                reference_logprobs=(
                    batch.pad([reference[id(row)] for row in batch.rows]).to(device) if reference else None
                ),
                sampler_logprobs=sampled,
            )
            finite(output.loss, f"step {step}").backward()
            mismatch = (before - sampled).abs() * mask
            sums.loss += float(output.loss.detach())
            sums.kl += float(output.kl)
            sums.clipped += float(output.clipped)
            sums.entropy += float(current.entropy)
            sums.mismatch += float(mismatch.sum())
            sums.mismatch_max = max(sums.mismatch_max, float(mismatch.max()))
            sums.tokens += int(batch.lengths.sum())
        sums.norms += (self.optimizer.step(),)

    @torch.no_grad()
    def _logprobs(self, module: nn.Module, rows: Sequence[TrainingRow]) -> dict[int, np.ndarray]:
        """Log-probabilities of each row's trained tokens, by the row's identity."""
        found: dict[int, np.ndarray] = {}
        for batch in self._training.micro_batches(rows, "log-probabilities"):
            logprobs = token_logprobs(module, batch).logprobs.cpu().numpy()
            for index, row in enumerate(batch.rows):
                found[id(row)] = logprobs[index, : batch.lengths[index]]
        return found

    def _metrics(self, sums: _Sums) -> dict[str, float]:
        steps, tokens = max(len(sums.norms), 1), max(sums.tokens, 1)
        return {
            "loss": sums.loss / steps,
            "kl": sums.kl / tokens,
            "clip_fraction": sums.clipped / tokens,
            "entropy": sums.entropy / tokens,
            "grad_norm": float(np.mean(sums.norms)) if sums.norms else 0.0,
            "lr": self.optimizer.last_lr,
            "optimizer_steps": len(sums.norms),
            "sampler_mismatch_mean": sums.mismatch / tokens,
            "sampler_mismatch_max": sums.mismatch_max,
        }
