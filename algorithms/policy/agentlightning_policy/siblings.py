"""Which segments of a packed batch are computed side by side, and how their tokens are laid out for that.

Segments with one parent and of like length (the answers to one prompt) lie side by side: S of them, n tokens each,
shorter ones padded at the end. Axes: N packed tokens, M slots of all that lie side by side.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agentlightning_policy.batches import Batch


@dataclass(frozen=True)
class Siblings:
    """Segments with one parent (or none), the tokens of the longest, and what is above them, from the root down."""

    segments: list[int]
    size: int
    ancestors: list[int]


def siblings_of(batch: Batch) -> list[Siblings]:
    sizes = [end - start for start, end in zip(batch.starts, batch.ends, strict=True)]
    alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for segment, (parent, size) in enumerate(zip(batch.parents, sizes, strict=True)):
        # lengths between the same two powers of two, so that padding is less than what is padded
        alike[parent, size.bit_length()].append(segment)
    return [
        Siblings(segments, max(sizes[segment] for segment in segments), batch.paths[parent] if parent >= 0 else [])
        for (parent, _), segments in alike.items()
    ]


@dataclass(frozen=True)
class Layout:
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
    def of(cls, all_siblings: list[Siblings], batch: Batch, device: torch.device) -> Layout:
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
