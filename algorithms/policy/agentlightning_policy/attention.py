"""Attention that is computed outside of the model, by whoever runs a pass: the engine over its cache, the trainer over
a tree of shared prefixes. Everything else in a model treats tokens alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from agentlightning.errors import PolicyError

NAME = "agentlightning"

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, float, int | None], torch.Tensor]
"""(layer, queries (1, H, N, D), keys and values (1, K, N, D), scale, sliding window) → (1, N, H, D)."""


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attend: Attend,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if softcap is not None or s_aux is not None:
        raise PolicyError(f"attention with soft-capping or sinks cannot be computed outside of {type(module).__name__}")
    layer = cast(int, module.layer_idx)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return attend(layer, query, key, value, scale, sliding_window), None


AttentionInterface.register(NAME, _attention)


def check_custom_attention(base: PreTrainedModel) -> None:
    """Raises `PolicyError` where the architecture lets no attention be given to it."""
    layers = set(getattr(base.config.get_text_config(), "layer_types", None) or ())
    odd = layers - {"full_attention", "sliding_attention"}
    if odd or not base._supports_attention_backend:
        why = f"layers of type {', '.join(sorted(odd))}" if odd else "an attention of its own"
        raise PolicyError(f"{type(base).__name__} has {why}")


@contextmanager
def custom_attention(module: nn.Module, name: str = NAME) -> Iterator[None]:
    """Inside the block the module's passes take their attention from the argument ``attend``, an `Attend`; or they
    compute it as transformers does by another ``name``."""
    configs = {id(part.config): part.config for part in module.modules() if isinstance(part, PreTrainedModel)}
    before = {key: config._attn_implementation for key, config in configs.items()}
    for config in configs.values():
        config._attn_implementation = name
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def causal(size: int, total: int, window: int | None, device: torch.device) -> torch.Tensor:
    """(size, total) bool: which of all positions the last ``size`` of them may see."""
    distance = torch.arange(total - size, total, device=device)[:, None] - torch.arange(total, device=device)
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)
