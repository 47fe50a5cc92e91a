"""One forward pass over many rows at once: the attention that the engine gives to transformers.

A pass takes one packed row of N tokens: first the next token of each running row, then the tokens of the
prompt segments that are to be computed. Everything but attention treats tokens alike; attention is computed

- for running rows, over the segments they share (one copy, read once for all rows) and over their own;
- for each new segment, over its ancestors and, causally, itself.

Axes: N packed tokens, B running rows, H query heads, K key-value heads, G = H / K, n tokens, D head size.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from agentlightning.errors import PolicyError
from agentlightning_policy.attention import NAME, causal, check_custom_attention
from agentlightning_policy.flash import flash, has_flash_kernels
from agentlightning_policy.sampler.cache import DecodeCache, Segment, Shape


def inference_view(module: nn.Module, base: PreTrainedModel) -> nn.Module:
    """A copy of the module's structure, on the very same weights, that takes its attention from whoever runs it.

    Raises `PolicyError` where the architecture lets no attention be given to it.
    """
    try:
        check_custom_attention(base)
    except PolicyError as error:
        raise PolicyError(f"the embedded engine cannot serve this model: {error}; use another") from None
    twin = copy.deepcopy(module, {id(weight): weight for weight in module.parameters()})
    for part in twin.modules():
        if isinstance(part, PreTrainedModel):
            part.config._attn_implementation = NAME
    return twin.eval()


def probe_kv_shape(module: nn.Module, device: torch.device) -> Shape:
    """What this model's keys and values look like, found by a pass over one token."""
    seen: dict[int, tuple[torch.Size, torch.Size, torch.dtype]] = {}

    def look(
        layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None
    ) -> torch.Tensor:
        seen[layer] = (key.shape, value.shape, key.dtype)
        return query.new_zeros(1, 1, query.shape[1], value.shape[-1])

    one = torch.zeros(1, 1, dtype=torch.long, device=device)
    with torch.inference_mode():
        module(input_ids=one, position_ids=one, use_cache=False, attend=look)
    kinds = set(seen.values())
    if len(kinds) != 1:
        raise PolicyError("the embedded engine serves models whose layers all have keys and values of one shape")
    key, value, dtype = kinds.pop()
    return Shape(len(seen), key[1], key[3], value[3], dtype, device)


@dataclass
class SharedPrefix:
    """A segment that several rows attend to. ``rows`` None means all; ``start`` is its first position."""

    segment: Segment
    rows: torch.Tensor | None
    start: int


@dataclass
class PrefillSegment:
    """A segment to be computed: the packed tokens from ``offset`` on, after ``ancestors``."""

    segment: Segment
    ancestors: Sequence[Segment]
    offset: int


class AttentionStep:
    """The attention of one pass. ``starts`` (B,) are the positions where the rows' own keys begin."""

    def __init__(
        self,
        cache: DecodeCache,
        starts: Sequence[int],
        shared: Sequence[SharedPrefix],
        prefills: Sequence[PrefillSegment],
    ) -> None:
        self.rows = len(cache.lengths)
        self.shared = shared
        self.prefills = prefills
        self._cache = cache
        device = cache.keys.device
        self._lengths = torch.tensor(cache.lengths, device=device)
        self._starts = torch.tensor(starts, device=device)
        self._index = torch.arange(self.rows, device=device)
        self._reach = max(cache.lengths, default=0) + 1
        self._prefix = max(starts, default=0)
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}
        self._own: torch.Tensor | None = None
        if self.rows:
            cache.reserve(self.rows, self._reach)

    def __call__(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        """(1, H, N, D) queries, (1, K, N, D) keys and values → (1, N, H, D)."""
        parts = []
        if self.rows:
            parts.append(self._decode(layer, query[0, :, : self.rows] * scale, key, value, window))
        for prefill in self.prefills:
            parts.append(self._prefill(layer, prefill, query, key, value, scale, window))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0)

    def _decode(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> torch.Tensor:
        rows, reach = self.rows, self._reach
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self._index, :, self._lengths] = key[0, :, :rows].transpose(0, 1)
        values[self._index, :, self._lengths] = value[0, :, :rows].transpose(0, 1)
        heads = keys.shape[1]
        # (H, B, D) → (B, K, G, D)
        grouped = query.unflatten(0, (heads, -1)).permute(2, 0, 1, 3)
        if window is None and self._by_parts and keys.shape[-1] == values.shape[-1]:
            return self._merged_parts(layer, grouped, keys[:rows, :, :reach], values[:rows, :, :reach])
        scores = torch.matmul(grouped, keys[:rows, :, :reach].transpose(2, 3))
        if self._prefix:
            scores = torch.cat([self._shared_scores(layer, grouped), scores], dim=-1)
        scores += self._mask(window).to(scores.dtype)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        out = torch.matmul(weights[..., self._prefix :], values[:rows, :, :reach])
        for shared in self.shared:
            self._add_shared(layer, shared, weights, out)
        return out.flatten(1, 2)

    def _merged_parts(self, layer: int, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The attention of (B, K, G, D) queries by fused kernels: to the rows' own keys, to each shared segment, and
        merged by their normalizers."""
        group = query.shape[2]
        out, normalizers = flash(query, keys, values, self._own_mask(query.dtype, group), 1.0)
        for shared in self.shared:
            chosen = query if shared.rows is None else query[shared.rows]
            flat = chosen.transpose(0, 1).flatten(1, 2)[None]
            part, above = flash(flat, shared.segment.keys[layer][None], shared.segment.values[layer][None], None, 1.0)
            part = part[0].unflatten(1, (-1, group)).transpose(0, 1)
            above = above[0].unflatten(1, (-1, group)).transpose(0, 1)
            if shared.rows is None:
                share = torch.sigmoid(above - normalizers)[..., None].to(out.dtype)
                out, normalizers = out.lerp(part, share), torch.logaddexp(normalizers, above)
            else:
                below = normalizers[shared.rows]
                share = torch.sigmoid(above - below)[..., None].to(out.dtype)
                out = out.index_copy(0, shared.rows, out[shared.rows].lerp(part, share))
                normalizers = normalizers.index_copy(0, shared.rows, torch.logaddexp(below, above))
        return out.flatten(1, 2)

    def _shared_scores(self, layer: int, grouped: torch.Tensor) -> torch.Tensor:
        rows, heads, group, _ = grouped.shape
        whole = len(self.shared) == 1 and self.shared[0].rows is None
        scores = grouped.new_empty(0) if whole else grouped.new_zeros(rows, heads, group, self._prefix)
        for shared in self.shared:
            chosen = grouped if shared.rows is None else grouped[shared.rows]
            # (b, K, G, D) → (K, b·G, D): one matrix product for all rows
            flat = chosen.transpose(0, 1).flatten(1, 2)
            part: torch.Tensor = torch.matmul(flat, shared.segment.keys[layer].transpose(1, 2))
            part = part.unflatten(1, (-1, group)).transpose(0, 1)
            if whole:
                return part
            columns = slice(shared.start, shared.start + len(shared.segment))
            if shared.rows is None:
                scores[..., columns] = part
            else:
                scores[shared.rows, :, :, columns] = part
        return scores

    def _add_shared(self, layer: int, shared: SharedPrefix, weights: torch.Tensor, out: torch.Tensor) -> None:
        group = weights.shape[2]
        part = weights[..., shared.start : shared.start + len(shared.segment)]
        chosen = part if shared.rows is None else part[shared.rows]
        flat = chosen.transpose(0, 1).flatten(1, 2)
        seen = torch.matmul(flat, shared.segment.values[layer]).unflatten(1, (-1, group)).transpose(0, 1)
        if shared.rows is None:
            out += seen
        else:
            out.index_add_(0, shared.rows, seen)

    def _mask(self, window: int | None) -> torch.Tensor:
        return self._full_mask if window is None else self._window_mask(window)

    @cached_property
    def _columns(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, prefix + reach): the position of each column's key, and whether the row may see it."""
        device = self._lengths.device
        prefix = torch.arange(self._prefix, device=device).expand(self.rows, -1)
        own = torch.arange(self._reach, device=device).expand(self.rows, -1)
        visible = torch.cat([prefix < self._starts[:, None], own <= self._lengths[:, None]], dim=1)
        return torch.cat([prefix, own + self._starts[:, None]], dim=1), visible

    @cached_property
    def _by_parts(self) -> bool:
        return self._lengths.device.type == "cpu" and has_flash_kernels()

    def _own_mask(self, dtype: torch.dtype, group: int) -> torch.Tensor:
        """(B, 1, G, reach), added to the scores of the rows' own keys."""
        if self._own is None:
            own = torch.arange(self._reach, device=self._lengths.device) <= self._lengths[:, None]
            self._own = _additive(own).to(dtype).expand(-1, -1, group, -1)
        return self._own

    @cached_property
    def _full_mask(self) -> torch.Tensor:
        return _additive(self._columns[1])

    def _window_mask(self, window: int) -> torch.Tensor:
        positions, visible = self._columns
        now = (self._starts + self._lengths)[:, None]
        return _additive(visible & (positions > now - window))

    def _prefill(
        self,
        layer: int,
        prefill: PrefillSegment,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
        window: int | None,
    ) -> torch.Tensor:
        size = len(prefill.segment)
        here = slice(prefill.offset, prefill.offset + size)
        prefill.segment.keys[layer] = key[0, :, here]
        prefill.segment.values[layer] = value[0, :, here]
        keys = torch.cat([*(part.keys[layer] for part in prefill.ancestors), key[0, :, here]], dim=1)
        values = torch.cat([*(part.values[layer] for part in prefill.ancestors), value[0, :, here]], dim=1)
        mask_key = (prefill.offset, window)
        if mask_key not in self._masks:
            self._masks[mask_key] = causal(size, keys.shape[1], window, keys.device)
        out = functional.scaled_dot_product_attention(
            query[:, :, here], keys[None], values[None], attn_mask=self._masks[mask_key], scale=scale, enable_gqa=True
        )
        return out[0].transpose(0, 1)


def _additive(visible: torch.Tensor) -> torch.Tensor:
    """(B, T) → (B, 1, 1, T), 0 where visible, else −∞."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, float("-inf"))[:, None, None]
