"""The attention of packed rows that branch: each segment attends to its ancestors and, causally, to itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agentlightning_policy.attention import causal
from agentlightning_policy.batches import Batch


class TreeAttention:
    """The attention of one batch; an `agentlightning_policy.attention.Attend`.

    Its cost is that of the pairs of tokens that see each other, where a mask over all pairs would pay for all.
    What the backward pass needs is computed again, layer by layer: only queries, keys and values are kept.
    """

    def __init__(self, batch: Batch) -> None:
        self._sizes = [end - start for start, end in zip(batch.starts, batch.ends, strict=True)]
        self._paths = batch.paths
        self._masks: dict[tuple[int, int, int, int | None], Tensor] = {}

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Tensor:
        inputs = (query, key, value, scale, window)
        if not torch.is_grad_enabled():
            return self._attend(*inputs)
        return checkpoint(self._attend, *inputs, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        """Queries of one key-value head (G of them) are laid one after another: (1, K, G · n, D) for n tokens."""
        group = query.shape[1] // key.shape[1]
        queries = query.unflatten(1, (-1, group)).split(self._sizes, dim=3)
        keys, values = key.split(self._sizes, dim=2), value.split(self._sizes, dim=2)
        parts = []
        for asked, path in zip(queries, self._paths, strict=True):
            seen = torch.cat([keys[segment] for segment in path], dim=2)
            out = functional.scaled_dot_product_attention(
                asked.flatten(2, 3),
                seen,
                torch.cat([values[segment] for segment in path], dim=2),
                attn_mask=self._mask(asked.shape[3], seen.shape[2], group, window, query.device),
                scale=scale,
            )
            parts.append(out.unflatten(2, (group, -1)))
        # (1, K, G, N, D) → (1, N, H, D)
        return torch.cat(parts, dim=3).flatten(1, 2).transpose(1, 2)

    def _mask(self, size: int, total: int, group: int, window: int | None, device: torch.device) -> Tensor:
        key = (size, total, group, window)
        if key not in self._masks:
            self._masks[key] = causal(size, total, window, device).repeat(group, 1)
        return self._masks[key]
