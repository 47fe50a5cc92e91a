"""The layers of a model under training compute what torch's and transformers' own do, forward and backward."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from agentlightning_policy.layers import Linear, RMSNorm, has_onednn, use_fast_layers
from agentlightning_policy.model import LoraConfig, ModelConfig, PolicyModel
from agentlightning_policy.sampler.packed import PackedLinear, pack_linears
from agentlightning_policy.sampler.scheduler import Scheduler

onednn = pytest.mark.skipif(not has_onednn(torch.float32), reason="torch has no oneDNN here")


class LlamaRMSNorm(nn.Module):
    """As most models have it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, size))
        self.variance_epsilon = 1e-5

    def forward(self, hidden: Tensor) -> Tensor:
        variance = hidden.pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


class GemmaRMSNorm(LlamaRMSNorm):
    """One that adds 1 to its weight: it is left as it is."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden) + hidden


def gradients(layer: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Of the input and of every weight, for a loss in which every output counts differently."""
    asked = inputs.clone().requires_grad_()
    output = layer(asked)
    layer.zero_grad()
    (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    assert asked.grad is not None
    return [output.detach(), asked.grad, *(weight.grad for weight in layer.parameters() if weight.grad is not None)]


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(nn.Linear(24, 16), marks=onednn),
        pytest.param(nn.Linear(24, 16, bias=False), marks=onednn),
        LlamaRMSNorm(24),
        GemmaRMSNorm(24),
    ],
    ids=["linear", "linear without bias", "norm", "another norm"],
)
@pytest.mark.parametrize("shape", [(24,), (7, 24), (1, 3, 24)])
def test_a_layer_computes_what_it_did(layer: nn.Module, shape: tuple[int, ...]) -> None:
    fast = nn.Sequential(copy.deepcopy(layer))
    use_fast_layers(fast)
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(gradients(fast, inputs), gradients(layer, inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_which_layers_are_exchanged() -> None:
    module = nn.Sequential(nn.Linear(4, 4), LlamaRMSNorm(4), GemmaRMSNorm(4), nn.Linear(4, 4).bfloat16())
    use_fast_layers(module)
    assert [type(layer) for layer in module] == [
        Linear if has_onednn(torch.float32) else nn.Linear,
        RMSNorm,
        GemmaRMSNorm,
        nn.Linear,
    ]


@onednn
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_a_loaded_model_has_them(tiny_model: Path, lora: LoraConfig | None) -> None:
    module = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora, device="cpu")).module
    kinds = {type(layer) for layer in module.modules()}
    assert {Linear, RMSNorm} <= kinds
    assert nn.Linear not in kinds


@onednn
@pytest.mark.parametrize("rows", [1, 5, 130])
def test_packed_layers_follow_their_weights(rows: int) -> None:
    layer = nn.Linear(24, 16)
    twin = nn.Sequential(copy.deepcopy(layer, {id(weight): weight for weight in layer.parameters()}))
    (packed,) = pack_linears(twin)
    assert isinstance(twin[0], PackedLinear)
    inputs = torch.randn(1, rows, 24)
    with torch.inference_mode():
        packed.refresh()
        torch.testing.assert_close(twin(inputs), layer(inputs))
    with torch.no_grad():
        layer.weight.add_(1.0)
    with torch.inference_mode():
        packed.refresh()
        torch.testing.assert_close(twin(inputs), layer(inputs))


@onednn
@pytest.mark.parametrize("pack", [True, False])
def test_weights_are_packed_where_that_is_wanted(tiny_model: Path, pack: bool) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), device="cpu"))
    scheduler = Scheduler(policy, max_batch=1, cache_memory=0, pack_weights=pack)
    assert {type(layer) for layer in scheduler._module.modules() if "Linear" in type(layer).__name__} == {
        PackedLinear if pack else Linear
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_is_packed_where_its_type_can_be_computed_here_and_left_alone_elsewhere(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(8, 4)).to(dtype)
    inputs = torch.linspace(-1, 1, 24).reshape(3, 8).to(dtype)
    expected = module(inputs)
    packed = pack_linears(module)
    assert len(packed) == has_onednn(dtype)
    for layer in packed:
        layer.refresh()
    assert torch.allclose(module(inputs), expected, atol=1e-2)
