"""Linear layers whose weights lie as oneDNN wants them: on a CPU, where a step of decoding multiplies a few rows with
every weight, they are read much faster than plain ones.

The packed copy is made again whenever the weights have changed; it costs as much memory as they do.
"""

from __future__ import annotations

import torch
from torch import nn

from agentlightning_policy.layers import Linear, has_onednn, onednn_linear

ROWS = 64
"""How many rows at once the layout is chosen for; others are computed with it all the same."""


def pack_linears(module: nn.Module) -> list[PackedLinear]:
    """Puts a `PackedLinear` in the place of every linear layer of ``module`` that can be packed, and returns them.

    None can on a GPU, where torch was built without oneDNN, or where that cannot compute in their type here.
    """
    packed = []
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear) and _can_be_packed(layer):
                packed.append(PackedLinear(layer))
                setattr(parent, name, packed[-1])
    return packed


def _can_be_packed(layer: nn.Linear) -> bool:
    if type(layer) not in (nn.Linear, Linear) or layer.weight.device.type != "cpu":
        return False
    return has_onednn(layer.weight.dtype)


class PackedLinear(nn.Module):
    """Computes what ``layer`` does, for inference. ``weight`` and ``bias`` are the layer's own."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self._packed: torch.Tensor | None = None

    def refresh(self) -> None:
        """Packs the weights again, where they may have changed: those that are trained."""
        if self._packed is None or self.weight.requires_grad:
            self._packed = None  # the old copy goes before the new one comes
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), ROWS)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        assert self._packed is not None, "refresh comes before the first pass"
        return onednn_linear(input, self._packed, self.bias)
