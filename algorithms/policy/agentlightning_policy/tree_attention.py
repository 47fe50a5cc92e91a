"""The attention of packed rows that branch: each segment attends to its ancestors and, causally, to itself.

Segments with one parent and of like length (the answers to one prompt) are computed side by side: S of them, n tokens
each, shorter ones padded at the end.

Axes: N packed tokens, M slots of all that lie side by side, H query heads, K key-value heads, G = H / K, D head size,
T tokens that a segment sees.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agentlightning_policy.attention import causal
from agentlightning_policy.batches import Batch
from agentlightning_policy.flash import has_flash_kernels
from agentlightning_policy.siblings import Layout, siblings_of
from agentlightning_policy.split_attention import SplitAttention


class TreeAttention:
    """The attention of one batch; an `agentlightning_policy.attention.Attend`.

    Its cost is that of the pairs of tokens that see each other, where a mask over all pairs would pay for all.
    What the backward pass needs is computed again, layer by layer: only queries, keys and values are kept.
    """

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self._sizes = [end - start for start, end in zip(batch.starts, batch.ends, strict=True)]
        self._siblings = siblings_of(batch)
        self._layout = Layout.of(self._siblings, batch, device)
        bounds = [slice(start, end) for start, end in zip(batch.starts, batch.ends, strict=True)]
        self._split = SplitAttention(self._siblings, self._layout, bounds)
        self._deepest = int(batch.positions.max()) + 1
        self._masks: dict[tuple[int, int, int, int | None], Tensor] = {}

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Tensor:
        if (
            query.device.type == "cpu"
            and query.dtype == torch.float32
            and (window is None or window >= self._deepest)
            and has_flash_kernels()
        ):
            return self._split(query, key, value, scale)
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
