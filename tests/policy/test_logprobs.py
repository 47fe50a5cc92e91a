"""Packed rows give the loss and the gradients of plain rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from policy.rows import rollouts
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from agentlightning_policy import logprobs
from agentlightning_policy.batches import make_batches
from agentlightning_policy.logprobs import TokenLogprobs, supports_packing, token_logprobs, unpacked_logprobs
from agentlightning_policy.model import LoraConfig, ModelConfig, PolicyModel


def gradients(module: torch.nn.Module, output: TokenLogprobs) -> dict[str, torch.Tensor]:
    module.zero_grad()
    weights = torch.linspace(-1, 1, output.logprobs.numel()).view_as(output.logprobs)
    (output.logprobs * weights).sum().backward()
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("limit", [2**27, 4000], ids=["at once", "in pieces"])
def test_packed_rows_give_loss_and_gradients_of_plain_rows(
    tiny_model_of: Callable[[str], Path], family: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "MAX_LOGITS", limit)
    module = AutoModelForCausalLM.from_pretrained(tiny_model_of(family))
    assert supports_packing(module)
    for batch in make_batches(rollouts(), 80):
        assert len(batch.token_ids) < sum(len(row.token_ids) for row in batch.rows)
        packed, plain = token_logprobs(module, batch), unpacked_logprobs(module, batch)
        torch.testing.assert_close(packed.logprobs, plain.logprobs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed.entropy, plain.entropy, atol=1e-3, rtol=1e-5)
        expected = gradients(module, plain)
        actual = gradients(module, packed)
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-5 * float(gradient.abs().max()), rtol=1e-5)


def test_a_log_probability_is_of_the_softmax_at_the_sampling_temperature(tiny_model: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(tiny_model)
    (batch,) = make_batches(rollouts()[4:5], 1000)
    (row,) = batch.rows
    assert row.temperature == 0.7
    logits = module(torch.from_numpy(row.token_ids).long()[None]).logits[0, :-1]
    expected = (logits / 0.7).log_softmax(-1)[range(len(logits)), row.token_ids[1:].tolist()][row.mask[1:]]
    torch.testing.assert_close(token_logprobs(module, batch).logprobs[0], expected)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)], ids=["full", "lora"])
def test_bfloat16_stays_close_to_float32_and_the_logprobs_are_float32(
    tiny_model: Path, lora: LoraConfig | None
) -> None:
    exact = PolicyModel.load(ModelConfig(path=str(tiny_model), device="cpu"))
    rough = PolicyModel.load(ModelConfig(path=str(tiny_model), dtype="bfloat16", lora=lora, device="cpu"))
    (batch,) = make_batches(rollouts(), 10_000)
    assert supports_packing(rough.module)
    expected, got = token_logprobs(exact.module, batch).logprobs, token_logprobs(rough.module, batch).logprobs
    assert got.dtype == torch.float32
    assert (expected - got).abs().mean() < 0.1
    assert gradients(rough.module, token_logprobs(rough.module, batch))


def test_a_lora_policy_is_packed_with_its_adapters_on(tiny_model: Path) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=LoraConfig(rank=4), device="cpu"))
    (batch,) = make_batches(rollouts(), 10_000)
    before = token_logprobs(policy.module, batch).logprobs
    with policy.updating(), torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = token_logprobs(policy.module, batch).logprobs
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, unpacked_logprobs(policy.module, batch).logprobs, atol=1e-4, rtol=1e-4)
    with policy.frozen_reference() as reference:
        torch.testing.assert_close(token_logprobs(reference, batch).logprobs, before, atol=1e-5, rtol=1e-5)


def test_a_model_whose_logits_are_capped_is_computed_by_plain_rows() -> None:
    config = Gemma2Config(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
        initializer_range=0.5,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    module = Gemma2ForCausalLM(config).eval()
    assert not supports_packing(module)
    (batch,) = make_batches(rollouts(), 10_000)
    torch.testing.assert_close(token_logprobs(module, batch).logprobs, unpacked_logprobs(module, batch).logprobs)


def test_rows_longer_than_a_sliding_window_see_what_is_in_it(tiny_model_of: Callable[[str], Path]) -> None:
    config = AutoConfig.from_pretrained(tiny_model_of("qwen2"))
    config.use_sliding_window, config.sliding_window = True, 6
    config.layer_types = ["sliding_attention", "full_attention"] * 2
    module = AutoModelForCausalLM.from_pretrained(tiny_model_of("qwen2"), config=config)
    (batch,) = make_batches(rollouts(), 10_000)
    assert supports_packing(module)
    torch.testing.assert_close(token_logprobs(module, batch).logprobs, unpacked_logprobs(module, batch).logprobs)
