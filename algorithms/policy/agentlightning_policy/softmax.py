"""Log-probabilities and entropy from logits, forward and backward, with as few passes over the logits as can be.

Logits are the largest tensor of an update: (P, V) for P predictors and a vocabulary of V. They are turned into
probabilities where they lie, a block of rows at a time that stays in the processor's cache, and into their own gradient
in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

BLOCK = 2**20
"""Logits of one block, at most: 4 MiB in float32."""


def target_logprobs(logits: Tensor, temperatures: Tensor, predictors: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probabilities (E,) of ``targets`` (E,), each under the row of ``logits`` (P, V) that ``predictors`` (E,)
    names, and the sum over the targets of the entropy (nats) of the distribution it was drawn from, detached.

    A row's distribution is the softmax of its logits divided by its temperature (P,). ``logits`` are float32 and are
    overwritten: nobody else may read them afterwards.
    """
    return _TargetLogprobs.apply(logits, temperatures, predictors, targets)  # type: ignore[no-any-return, no-untyped-call]


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, temperatures: Tensor, predictors: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        tempered = bool((temperatures != 1).any())
        normalizers, entropies = torch.empty_like(temperatures), torch.empty_like(temperatures)
        chosen = logits[predictors, targets] / temperatures[predictors]
        for rows in _blocks(logits):
            block = logits[rows]
            if tempered:
                block /= temperatures[rows, None]
            largest = block.amax(-1, keepdim=True)
            shifted = block - largest
            torch.exp(shifted, out=block)
            total = block.sum(-1, keepdim=True)
            block /= total
            log_total = total.log()
            normalizers[rows] = (largest + log_total)[:, 0]
            entropies[rows] = log_total[:, 0] - torch.linalg.vecdot(block, shifted)
        ctx.save_for_backward(logits, temperatures, predictors, targets)
        entropy = entropies[predictors].sum()
        ctx.mark_non_differentiable(entropy)
        return chosen - normalizers[predictors], entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        probabilities, temperatures, predictors, targets = ctx.saved_tensors
        gradient = gradient / temperatures[predictors]
        by_row = torch.zeros_like(temperatures).index_add_(0, predictors, gradient)
        probabilities *= -by_row[:, None]
        probabilities.index_put_((predictors, targets), gradient, accumulate=True)
        return probabilities, None, None, None


def _blocks(logits: Tensor) -> Iterator[slice]:
    size = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
