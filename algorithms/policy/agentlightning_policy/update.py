"""One step's update of the policy: rows → micro-batches → loss → optimizer steps."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from agentlightning.backend import Phase
from agentlightning.loss import LossConfig
from agentlightning.training_rows import TrainingRow
from agentlightning_policy.batches import Batch, make_batches
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.losses import Totals, policy_loss
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer, check_finite


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


class PolicyUpdater:
    """Updates a policy on a step's rows, in the same way whenever the rows are the same.

    With one optimizer step per collection the old log-probabilities are the current ones, so nothing is
    computed twice and ρ is 1 (as TRL does). With more, they are computed first. ``max_tokens`` bounds a micro-batch.
    """

    def __init__(self, policy: PolicyModel, optimizer: Optimizer, *, seed: int, max_tokens: int, phase: Phase) -> None:
        self.policy = policy
        self.optimizer = optimizer
        self._seed = seed
        self._max_tokens = max_tokens
        self._phase = phase

    def update(
        self,
        groups: Sequence[Sequence[TrainingRow]],
        loss: LossConfig,
        *,
        step: int,
        epochs: int = 1,
        mini_batches: int = 1,
    ) -> dict[str, float]:
        """Goes over the rows and changes the weights (`agentlightning.backend.Backend.update`)."""
        rows: list[TrainingRow] = []  # those that are computed
        computed: list[range] = []  # where the rows of each group stand among them
        for group in groups:
            begin = len(rows)
            rows += group if _is_computed(group, loss) else ()
            computed.append(range(begin, len(rows)))
        if not rows:
            return {"lr": self.optimizer.last_lr, "optimizer_steps": 0}
        old = self.logprobs(rows) if epochs * mini_batches > 1 else None
        reference = self.logprobs(rows, reference=True) if loss.beta != 0 else None
        sums = _Sums()
        with self._train_mode(step):
            for epoch in range(epochs):
                order = np.random.default_rng([self._seed, step, epoch]).permutation(len(groups))
                for part in np.array_split(order, min(mini_batches, len(groups))):
                    counted = [row for group in part for row in groups[group]]
                    totals = Totals(sequences=len(counted), tokens=sum(row.trained_tokens for row in counted))
                    chosen = [index for group in part for index in computed[group]]
                    self._optimizer_step(rows, chosen, loss, totals, old, reference, sums, step)
        return _metrics(sums, loss, self.optimizer)

    def logprobs(self, rows: Sequence[TrainingRow], *, reference: bool = False) -> list[np.ndarray]:
        """The log-probabilities of each row's trained tokens (`agentlightning.backend.Backend.logprobs`)."""
        if not reference:
            return self._logprobs(self.policy.module, rows)
        with self.policy.frozen_reference() as module:
            return self._logprobs(module, rows)

    def _optimizer_step(
        self,
        rows: Sequence[TrainingRow],
        chosen: Sequence[int],
        loss: LossConfig,
        totals: Totals,
        old: Sequence[np.ndarray] | None,
        reference: Sequence[np.ndarray] | None,
        sums: _Sums,
        step: int,
    ) -> None:
        """One step on the rows that ``chosen`` points to; ``old`` and ``reference`` go with ``rows``."""
        if not chosen:
            return
        device = self.policy.device
        for batch in self._micro_batches([rows[index] for index in chosen], "update"):
            indices = [chosen[index] for index in batch.indices]
            current = token_logprobs(self.policy.module, batch)
            before = current.logprobs.detach()
            if old is not None:
                before = batch.pad([old[index] for index in indices]).to(device)
            mask, sampled = batch.mask.to(device), batch.sampler_logprobs.to(device)
            output = policy_loss(
                current.logprobs,
                before,
                batch.advantages.to(device),
                mask,
                loss,
                totals,
                reference_logprobs=(
                    batch.pad([reference[index] for index in indices]).to(device) if reference is not None else None
                ),
                sampler_logprobs=sampled,
            )
            check_finite(output.loss, f"step {step}").backward()
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
    def _logprobs(self, module: nn.Module, rows: Sequence[TrainingRow]) -> list[np.ndarray]:
        found = [np.empty(0, np.float32)] * len(rows)
        for batch in self._micro_batches(rows, "log-probabilities"):
            logprobs = token_logprobs(module, batch).logprobs.cpu().numpy()
            for values, index, length in zip(logprobs, batch.indices, batch.lengths, strict=True):
                found[index] = values[:length]
        return found

    def _micro_batches(self, rows: Sequence[TrainingRow], what: str) -> Iterator[Batch]:
        batches = make_batches(rows, self._max_tokens)
        for done, batch in enumerate(batches):
            self._phase(what, done=done, total=len(batches))
            yield batch

    @contextmanager
    def _train_mode(self, step: int) -> Iterator[None]:
        """Training mode (adapters may have dropout), with random draws that depend on the seed and the step."""
        self._phase("update")
        device = self.policy.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(self._seed * 1_000_003 + step)
            self.policy.module.train()
            try:
                yield
            finally:
                self.policy.module.eval()
                _return_freed_memory()


def _is_computed(group: Sequence[TrainingRow], loss: LossConfig) -> bool:
    return bool(group) and (loss.beta != 0 or any(bool(row.advantages.any()) for row in group))


def _metrics(sums: _Sums, loss: LossConfig, optimizer: Optimizer) -> dict[str, float]:
    steps, tokens = max(len(sums.norms), 1), max(sums.tokens, 1)
    metrics = {
        "loss": sums.loss / steps,
        "entropy": sums.entropy / tokens,
        "grad_norm": float(np.mean(sums.norms)) if sums.norms else 0.0,
        "lr": optimizer.last_lr,
        "optimizer_steps": len(sums.norms),
    }
    if loss.kind == "cross_entropy":  # which knows no other policy, and no sampler where others wrote the tokens
        return metrics
    return metrics | {
        "kl": sums.kl / tokens,
        "clip_fraction": sums.clipped / tokens,
        "sampler_mismatch_mean": sums.mismatch / tokens,
        "sampler_mismatch_max": sums.mismatch_max,
    }


def _return_freed_memory() -> None:
    """glibc keeps what torch frees, in an arena of each thread: gigabytes, after a few steps on a CPU."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
