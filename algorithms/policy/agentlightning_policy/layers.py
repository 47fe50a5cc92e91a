"""Layers of a model under training, in fewer passes over memory than torch's own take on a CPU.

Each computes what the layer it stands for computes, up to rounding, and has its weights, names and place.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional


def use_fast_layers(module: nn.Module) -> None:
    """Exchanges the layers of ``module`` for those of this file, where they are on a CPU, in float32, and of a kind
    that is known here: `torch.nn.Linear`, and the RMSNorm and the SwiGLU of most models."""
    for layer in module.modules():
        if type(layer) is nn.Linear and has_onednn() and _fits(layer.weight):
            layer.__class__ = Linear
        elif _is_rms_norm(layer):
            layer.__class__ = RMSNorm
        elif _is_gated_mlp(layer):
            layer.__class__ = GatedMLP


def _computes(kind: type[nn.Module], layer: nn.Module, size: int) -> bool:
    """Whether a layer over ``size`` features gives what ``kind`` would in its place: some norms add 1 to the weight."""
    if not all(map(_fits, layer.parameters())):
        return False
    probe = torch.linspace(-2, 3, size)[None]
    with torch.no_grad():
        return torch.allclose(layer(probe), kind.forward(layer, probe), rtol=1e-4, atol=1e-5)


def _fits(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32


class Linear(nn.Linear):
    """Two of the three products by oneDNN, which is faster at them than what torch takes for float32."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return onednn_linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        input, weight = ctx.saved_tensors
        for_input, for_weight, for_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        return (
            onednn_linear(gradient, weight.t()) if for_input else None,
            flat.t() @ input.reshape(-1, input.shape[-1]) if for_weight else None,
            flat.sum(0) if for_bias else None,
        )


def onednn_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` by oneDNN; ``weight`` may be packed as it likes it best."""
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]


@functools.cache
def has_onednn() -> bool:
    """Whether `onednn_linear` works here; torch has it on most CPUs."""
    input, weight = torch.ones(1, 2), torch.ones(3, 2)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        return bool((onednn_linear(input, packed) == 2).all())
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich 2019): w · x / √(mean x² + ε)."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        return _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-any-return, no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        scale = (input.square().mean(-1, keepdim=True) + epsilon).rsqrt()
        ctx.save_for_backward(input, weight, scale)
        return (input * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        input, weight, scale = ctx.saved_tensors
        normalized = input * scale
        product = gradient * normalized
        for_weight = product.reshape(-1, input.shape[-1]).sum(0) if ctx.needs_input_grad[1] else None
        along = (product @ weight).div_(input.shape[-1])[..., None]
        return (gradient * weight).addcmul_(normalized, along, value=-1).mul_(scale), for_weight, None


def _is_rms_norm(layer: Any) -> bool:
    return (
        type(layer).__name__.endswith("RMSNorm")
        and hasattr(layer, "variance_epsilon")
        and _computes(RMSNorm, layer, len(layer.weight))
    )


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) · up(x))."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        return self.down_proj(_SwiGLU.apply(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-any-return, no-untyped-call]


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up, of which nothing but the two is kept."""

    @staticmethod
    def forward(ctx: FunctionCtx, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient * up, gate), functional.silu(gate).mul_(gradient)


def _is_gated_mlp(layer: Any) -> bool:
    parts = dict(layer.named_children())
    return (
        parts.keys() == {"gate_proj", "up_proj", "down_proj", "act_fn"}
        and type(parts["act_fn"]).__name__ in ("SiLU", "SiLUActivation")
        and _computes(GatedMLP, layer, parts["gate_proj"].in_features)
    )
