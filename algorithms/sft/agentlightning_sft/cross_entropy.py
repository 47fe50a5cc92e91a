"""The update: cross-entropy of the trained tokens, a mean over the tokens of the whole optimizer step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from agentlightning.records import TrainingRow
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.optimize import finite
from agentlightning_policy.training import Training


def learn(training: Training, chosen: Sequence[TrainingRow], step: int) -> dict[str, float]:
    """Goes over the rows ``epochs`` times in ``mini_batches`` optimizer steps each; returns the metrics.

    The loss (nats per token) is that of the policy at temperature 1, whatever it was sampled with. Raises
    `AlgorithmError` when the loss or its gradient is not finite.
    """
    config = training.config
    rows = [msgspec.structs.replace(row, temperature=1.0) for row in chosen]
    losses, norms = [], []
    with training.learning(step):
        for epoch in range(config.epochs):
            order = np.random.default_rng([training.run.seed, step, epoch]).permutation(len(rows))
            for part in np.array_split(order, min(config.mini_batches, len(rows))):
                losses.append(_gradient(training, [rows[int(place)] for place in part], step))
                norms.append(training.optimizer.step())
    return {
        "loss": float(np.mean(losses)) if losses else 0.0,
        "grad_norm": float(np.mean(norms)) if norms else 0.0,
        "lr": training.optimizer.last_lr,
        "optimizer_steps": len(norms),
        "tokens": sum(int(row.mask.sum()) for row in rows),
    }


def _gradient(training: Training, rows: Sequence[TrainingRow], step: int) -> float:
    tokens = sum(int(row.mask.sum()) for row in rows)
    total = 0.0
    for batch in training.micro_batches(rows):
        logprobs = token_logprobs(training.policy.module, batch).logprobs
        loss = finite(-logprobs.sum() / tokens, f"step {step}")
        loss.backward()
        total += float(loss.detach())
    return total
