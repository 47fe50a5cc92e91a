"""Torch's fused attention on a CPU, with its normalizers: two parts of one attention can be merged by them, as in
FlashAttention (Dao et al. 2022).

The kernels have no public name: checked with torch 2.13, asked for by `has_flash_kernels`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def has_flash_kernels() -> bool:
    """Whether the kernels are there and give what they should; True with torch's builds for CPUs."""
    query = torch.ones(1, 1, 2, 8)
    try:
        out, normalizers = flash(query, query, query, None, 1.0)
        flash_backward(query, (query, query, query), out, normalizers, None, 1.0)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return bool((out - 1).abs().max() < 1e-5 and (normalizers - query.new_tensor(2).log() - 8).abs().max() < 1e-5)


def flash(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """(B, H, n, D) queries, (B, H, m, D) keys and values and a ``mask`` that is added to the scores → what comes out
    (B, H, n, D), and the normalizers, log Σ exp of the scores (B, H, n)."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # type: ignore[no-any-return]
        query, key, value, 0.0, False, attn_mask=mask, scale=scale
    )


def flash_backward(
    gradient: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    normalizers: Tensor,
    mask: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of ``inputs``: queries, keys and values."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(  # type: ignore[no-any-return]
        gradient, *inputs, out, normalizers, 0.0, False, attn_mask=mask, scale=scale
    )
