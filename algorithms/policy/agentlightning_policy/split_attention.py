"""The attention of packed rows on a CPU, in two parts: to the ancestors, which siblings share and none copies, and to
the segment itself. Their normalizers merge them, as in FlashAttention (Dao et al. 2022), forward and backward.

Axes: N packed tokens, S segments side by side of n tokens each, A tokens above them, H query heads, K key-value heads,
G = H / K, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agentlightning_policy.attention import causal
from agentlightning_policy.flash import flash, flash_backward
from agentlightning_policy.siblings import Layout, Siblings


@dataclass(frozen=True)
class SplitAttention:
    """The attention of one batch, without a sliding window, in the types that the kernels know.

    ``bounds`` says where each segment lies among the packed tokens.
    """

    siblings: Sequence[Siblings]
    layout: Layout
    bounds: Sequence[slice]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(1, H, N, D) queries, (1, K, N, D) keys and values → (1, N, H, D)."""
        return _SplitAttention.apply(query, key, value, self, scale)  # type: ignore[no-any-return, no-untyped-call]

    def parts(self, query: Tensor, key: Tensor, value: Tensor) -> list[_Part]:
        """What is attended to what: packed (N, H, D) queries, (N, K, D) keys and values."""
        heads = key.shape[1]
        queries, keys, values = (self.heads_first(tensor, heads) for tensor in (query, key, value))
        return [
            _Part(
                query=one_query,
                own=(one_key[:, :, 0].transpose(0, 1), one_value[:, :, 0].transpose(0, 1)),
                above=[
                    torch.cat([packed[self.bounds[segment]] for segment in siblings.ancestors]).transpose(0, 1)[None]
                    for packed in ((key, value) if siblings.ancestors else ())
                ],
                mask=_causal_mask(siblings.size, one_query),
            )
            for siblings, one_query, one_key, one_value in zip(self.siblings, queries, keys, values, strict=True)
        ]

    def heads_first(self, packed: Tensor, heads: int, *, blank: bool = False) -> list[Tensor]:
        """(N, K · G, D) → for each set of siblings (K, S, G, n, D); with ``blank`` the padding is 0."""
        slots = packed.index_select(0, self.layout.token_of)
        if blank:
            slots.index_fill_(0, self.layout.padding, 0.0)
        parts = slots.split([len(siblings.segments) * siblings.size for siblings in self.siblings])
        return [
            part.view(len(siblings.segments), siblings.size, heads, -1, packed.shape[-1])
            .permute(2, 0, 3, 1, 4)
            .contiguous()
            for siblings, part in zip(self.siblings, parts, strict=True)
        ]

    def packed(self, parts: Sequence[Tensor]) -> Tensor:
        """(K, S, G, n, D) for each set of siblings → (N, K · G, D)."""
        slots = torch.cat([part.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1) for part in parts])
        return slots.index_select(0, self.layout.slot_of)


@dataclass(frozen=True)
class _Part:
    """``query`` (K, S, G, n, D); ``own`` keys and values (S, K, n, D); those ``above`` (1, K, A, D), where there are
    any. ``mask`` (G · n, n) is added to the scores of their own."""

    query: Tensor
    own: tuple[Tensor, Tensor]
    above: list[Tensor]
    mask: Tensor

    def forward(self, scale: float) -> tuple[Tensor, Tensor]:
        """What comes out (K, S, G, n, D), and the normalizers (K, S, G, n)."""
        out, normalizers = flash(_by_segment(self.query), *self.own, self.mask, scale)
        group = self.query.shape[2]
        out, normalizers = _from_segments(out, group), _from_segments(normalizers, group)
        if not self.above:
            return out, normalizers
        out_above, above = flash(_together(self.query), self.above[0], self.above[1], None, scale)
        out_above, above = out_above.view_as(self.query), above.view_as(normalizers)
        total = torch.logaddexp(normalizers, above)
        merged = out_above * (above - total).exp_()[..., None]
        return merged.addcmul_(out, (normalizers - total).exp_()[..., None]), total

    def backward(self, gradient: Tensor, out: Tensor, normalizers: Tensor, scale: float) -> list[Tensor]:
        """The gradients of ``query``, of ``own`` and of ``above``."""
        group = self.query.shape[2]
        inputs = (_by_segment(self.query), *self.own)
        for_query, *for_own = flash_backward(
            _by_segment(gradient), inputs, _by_segment(out), _by_segment(normalizers), self.mask, scale
        )
        for_query = _from_segments(for_query, group)
        if not self.above:
            return [for_query, *for_own]
        inputs = (_together(self.query), self.above[0], self.above[1])
        more, *for_above = flash_backward(
            _together(gradient), inputs, _together(out), _together(normalizers), None, scale
        )
        return [for_query + more.view_as(self.query), *for_own, *for_above]


def _by_segment(tensor: Tensor) -> Tensor:
    """(K, S, G, n, …) → (S, K, G · n, …)"""
    return tensor.transpose(0, 1).flatten(2, 3)


def _from_segments(tensor: Tensor, group: int) -> Tensor:
    """(S, K, G · n, …) → (K, S, G, n, …)"""
    return tensor.unflatten(2, (group, -1)).transpose(0, 1)  # type: ignore[no-any-return]


def _together(tensor: Tensor) -> Tensor:
    """(K, S, G, n, …) → (1, K, S · G · n, …)"""
    return tensor.flatten(1, 3)[None]


def _causal_mask(size: int, query: Tensor) -> Tensor:
    mask = query.new_zeros(size, size)
    mask.masked_fill_(~causal(size, size, None, query.device), float("-inf"))
    return mask.repeat(query.shape[2], 1)


class _SplitAttention(torch.autograd.Function):
    """Keeps packed tensors alone; they are laid out again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, split: SplitAttention, scale: float) -> Tensor:
        packed = [part[0].transpose(0, 1) for part in (query, key, value)]
        results = [part.forward(scale) for part in split.parts(*packed)]
        out = split.packed([part_out for part_out, _ in results])
        ctx.save_for_backward(*packed, out, *(normalizers for _, normalizers in results))
        ctx.split, ctx.scale = split, scale
        return out[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, out, *normalizers = ctx.saved_tensors
        split, heads = ctx.split, key.shape[1]
        gradients = split.heads_first(gradient[0], heads, blank=True)
        outs = split.heads_first(out, heads)
        for_queries, for_own, for_above = [], [], []
        for part, *given in zip(split.parts(query, key, value), gradients, outs, normalizers, strict=True):
            for_query, *others = part.backward(*given, ctx.scale)
            for_queries.append(for_query)
            for_own.append([other.transpose(0, 1)[:, :, None] for other in others[:2]])
            for_above.append(others[2:])
        for_key, for_value = (split.packed(own) for own in zip(*for_own, strict=True))
        for siblings, above in zip(split.siblings, for_above, strict=True):
            sizes = [split.bounds[segment].stop - split.bounds[segment].start for segment in siblings.ancestors]
            for target, source in zip((for_key, for_value), above, strict=False):  # there is none above a root
                for segment, share in zip(siblings.ancestors, source[0].transpose(0, 1).split(sizes), strict=True):
                    target[split.bounds[segment]] += share
        for_query = split.packed(for_queries)
        return *(packed.transpose(0, 1)[None] for packed in (for_query, for_key, for_value)), None, None
