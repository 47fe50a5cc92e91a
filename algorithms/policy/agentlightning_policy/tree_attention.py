"""The attention of packed rows that branch: each segment attends to its ancestors and, causally, to itself.

Segments with one parent and of like length (the answers to one prompt) are computed side by side: S of them, n tokens
each, shorter ones padded at the end.

Axes: N packed tokens, M slots of all that lie side by side, H query heads, K key-value heads, G = H / K, D head size,
T tokens that a segment sees.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agentlightning_policy.attention import causal
from agentlightning_policy.batches import Batch


class TreeAttention:
    """The attention of one batch; an `agentlightning_policy.attention.Attend`.

    Its cost is that of the pairs of tokens that see each other, where a mask over all pairs would pay for all.
    What the backward pass needs is computed again, layer by layer: only queries, keys and values are kept.
    """

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self._sizes = [end - start for start, end in zip(batch.starts, batch.ends, strict=True)]
        self._siblings = _siblings(batch)
        self._layout = _Layout.of(self._siblings, batch, device)
        self._masks: dict[tuple[int, int, int, int | None], Tensor] = {}

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Tensor:
        inputs = (query, key, value, scale, window)
        if not torch.is_grad_enabled():
            return self._attend(*inputs)
        return checkpoint(self._attend, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """(1, H, N, D) queries, (1, K, N, D) keys and values → (1, N, H, D)."""
        heads, group = key.shape[1], query.shape[1] // key.shape[1]
        packed = [part[0].transpose(0, 1) for part in (query, key, value)]
        slots = [len(siblings.segments) * siblings.size for siblings in self._siblings]
        laid_out = [self._layout.side_by_side(part).split(slots) for part in packed]
        keys, values = packed[1].split(self._sizes), packed[2].split(self._sizes)
        parts = []
        for siblings, queries, *own in zip(self._siblings, *laid_out, strict=True):
            shape = (len(siblings.segments), siblings.size)
            seen_keys, seen_values = (
                torch.cat([*(above[it].expand(shape[0], -1, -1, -1) for it in siblings.ancestors), part], dim=1)
                for above, part in zip((keys, values), (part.unflatten(0, shape) for part in own), strict=True)
            )
            out = functional.scaled_dot_product_attention(
                # one key-value head's queries are laid one after another: (S, n, K · G, D) → (S, K, G · n, D)
                queries.unflatten(0, shape).unflatten(2, (heads, group)).permute(0, 2, 3, 1, 4).flatten(2, 3),
                seen_keys.transpose(1, 2),
                seen_values.transpose(1, 2),
                attn_mask=self._mask(siblings.size, seen_keys.shape[1], group, window, query),
                scale=scale,
            )
            parts.append(out.unflatten(2, (group, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1))
        return self._layout.packed(torch.cat(parts))[None]

    def _mask(self, size: int, total: int, group: int, window: int | None, like: Tensor) -> Tensor:
        """(G · n, T), added to the scores: 0 where the last n of T tokens may look, else −∞. Padding comes after all
        that a true token sees."""
        key = (size, total, group, window)
        if key not in self._masks:
            visible = causal(size, total, window, like.device)
            self._masks[key] = like.new_zeros(size, total).masked_fill_(~visible, float("-inf")).repeat(group, 1)
        return self._masks[key]


@dataclass(frozen=True)
class _Siblings:
    """Segments with one parent (or none), the tokens of the longest, and what is above them, from the root down."""

    segments: list[int]
    size: int
    ancestors: list[int]


def _siblings(batch: Batch) -> list[_Siblings]:
    sizes = [end - start for start, end in zip(batch.starts, batch.ends, strict=True)]
    alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for segment, (parent, size) in enumerate(zip(batch.parents, sizes, strict=True)):
        # lengths between the same two powers of two, so that padding is less than what is padded
        alike[parent, size.bit_length()].append(segment)
    return [
        _Siblings(segments, max(sizes[segment] for segment in segments), batch.paths[parent] if parent >= 0 else [])
        for (parent, _), segments in alike.items()
    ]


@dataclass(frozen=True)
class _Layout:
    """``token_of`` (M,): the packed token that lies in each slot, any one in the slots ``padding``. ``slot_of`` (N,)
    says it the other way round."""

    token_of: Tensor
    slot_of: Tensor
    padding: Tensor

    def side_by_side(self, tokens: Tensor) -> Tensor:
        """(N, …) → (M, …). No true token looks at padding, so none of its gradient is lost."""
        return _Rearranged.apply(tokens, self.token_of, self.slot_of, self.padding[:0])  # type: ignore[no-any-return, no-untyped-call]

    def packed(self, slots: Tensor) -> Tensor:
        """(M, …) → (N, …): the way back."""
        return _Rearranged.apply(slots, self.slot_of, self.token_of, self.padding)  # type: ignore[no-any-return, no-untyped-call]

    @classmethod
    def of(cls, all_siblings: list[_Siblings], batch: Batch, device: torch.device) -> _Layout:
        rows = []
        for siblings in all_siblings:
            for segment in siblings.segments:
                places = batch.starts[segment] + np.arange(siblings.size)
                rows.append(np.where(places < batch.ends[segment], places, -1))
        token_of = np.concatenate(rows)
        taken = np.flatnonzero(token_of >= 0)
        slot_of = np.empty(len(taken), np.int64)
        slot_of[token_of[taken]] = taken
        padding = np.flatnonzero(token_of < 0)
        return cls(*(torch.from_numpy(places).to(device) for places in (token_of.clip(min=0), slot_of, padding)))


class _Rearranged(torch.autograd.Function):
    """Takes values from the places ``there``. Gradients return by ``back``, and none to the places ``blank``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, there: Tensor, back: Tensor, blank: Tensor) -> Tensor:
        ctx.back, ctx.blank = back, blank
        return values.index_select(0, there)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient.index_select(0, ctx.back).index_fill_(0, ctx.blank, 0.0), None, None, None
