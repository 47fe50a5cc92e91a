"""Layers of a model under training, in fewer passes over memory than torch's own take on a CPU.

Each computes what the layer it stands for computes, up to rounding, and has its weights, names and place. Gradients of
weights are added to ``weight.grad`` where they arise, as Megatron-LM's fused accumulation does: they are no results of
the backward pass, and `torch.autograd.grad` does not see them. A weight is kept as itself, for it is not it that
``saved_tensors`` gives back where a layer is computed again.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def use_fast_layers(module: nn.Module) -> None:
    """Exchanges the layers of ``module`` for those of this file, where they are on a CPU, in float32, and of a kind
    that is known here: `torch.nn.Linear`, `torch.nn.Embedding`, and the RMSNorm and the SwiGLU of most models."""
    for layer in module.modules():
        if type(layer) is nn.Linear and has_onednn(layer.weight.dtype) and _fits(layer.weight):
            layer.__class__ = Linear
        elif type(layer) is nn.Embedding and _fits(layer.weight) and _is_plain(layer):
            layer.__class__ = Embedding
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
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input)
        ctx.weight = weight
        return onednn_linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (input,), weight = ctx.saved_tensors, ctx.weight
        for_input, for_weight, for_bias = ctx.needs_input_grad
        flat = gradient.reshape(-1, gradient.shape[-1])
        if for_weight:
            add_product(weight, flat, input.reshape(-1, input.shape[-1]))
        return (
            onednn_linear(gradient, weight.t()) if for_input else None,
            None,
            flat.sum(0) if for_bias else None,
        )


def add_product(weight: Tensor, output_gradients: Tensor, inputs: Tensor) -> None:
    """Adds the gradient (out, in) of ``weight`` to those it has: of (N, out) by (N, in)."""
    if weight.grad is None:
        weight.grad = output_gradients.t() @ inputs
    else:
        weight.grad.addmm_(output_gradients.t(), inputs)


def onednn_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` by oneDNN; ``weight`` may be packed as it likes it best."""
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]


@functools.cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether `onednn_linear` works here; torch has it on most CPUs, in bfloat16 on those with AVX-512 or newer."""
    input, weight = torch.ones(1, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
        return bool((onednn_linear(input, packed) == 2).all())
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


class Embedding(nn.Embedding):
    """Adds the gradients of the tokens that there are, and touches no others: vocabularies are large."""

    def forward(self, input: Tensor) -> Tensor:
        """(…,) token ids → (…, C)."""
        return _Embedding.apply(input, self.weight, self.padding_idx)  # type: ignore[no-any-return, no-untyped-call]


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.save_for_backward(input)
        ctx.weight, ctx.padding = weight, padding
        return functional.embedding(input, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (input,), weight = ctx.saved_tensors, ctx.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        if ctx.padding is not None:
            gradient = gradient.masked_fill((input == ctx.padding)[..., None], 0.0)
        weight.grad.index_add_(0, input.flatten(), gradient.reshape(-1, gradient.shape[-1]))
        return None, None, None


def _is_plain(layer: nn.Embedding) -> bool:
    return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse


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
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) · up(x)). What enters ``down`` is not kept but made again."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        gate, up, down = self.gate_proj(x), self.up_proj(x), self.down_proj
        if type(down) is Linear and down.bias is None:
            return _GatedDown.apply(gate, up, down.weight)
        return down(functional.silu(gate) * up)  # type: ignore[no-any-return]


class _GatedDown(torch.autograd.Function):
    """(silu(gate) · up) Wᵀ."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.weight = weight
        return onednn_linear(functional.silu(gate).mul_(up), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (gate, up), weight = ctx.saved_tensors, ctx.weight
        activated = functional.silu(gate)
        if ctx.needs_input_grad[2]:
            product = activated * up
            add_product(weight, gradient.reshape(-1, gradient.shape[-1]), product.reshape(-1, product.shape[-1]))
            del product
        inner = onednn_linear(gradient, weight.t())
        for_up = activated.mul_(inner)
        return torch.ops.aten.silu_backward(inner.mul_(up), gate), for_up, None


def _is_gated_mlp(layer: Any) -> bool:
    parts = dict(layer.named_children())
    return (
        parts.keys() == {"gate_proj", "up_proj", "down_proj", "act_fn"}
        and type(parts["act_fn"]).__name__ in ("SiLU", "SiLUActivation")
        and _computes(GatedMLP, layer, parts["gate_proj"].in_features)
    )
