"""The optimizer's rate over a run, and who notices its steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from policy.rows import training_row
from served_policy import Ask

from agentlightning_policy.batches import make_batches
from agentlightning_policy.config import LoraConfig, ModelConfig, OptimizerConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer


def rates(policy: PolicyModel, steps: int, **fields: object) -> list[float]:
    """The rate of each of the run's steps."""
    optimizer = Optimizer(policy, OptimizerConfig(lr=1.0, **fields), total_steps=steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.lr)
        for weight in policy.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
    return found


def test_the_rate_is_constant_unless_said_otherwise(policy: PolicyModel) -> None:
    assert rates(policy, 3) == [1.0, 1.0, 1.0]


def test_it_rises_over_the_warm_up(policy: PolicyModel) -> None:
    assert rates(policy, 5, warmup=3) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_linear_schedule_falls_towards_zero_at_the_end_of_the_run(policy: PolicyModel) -> None:
    assert rates(policy, 4, schedule="linear") == [1.0, 0.75, 0.5, 0.25]


def test_a_cosine_falls_slowly_at_first_and_at_last(policy: PolicyModel) -> None:
    assert rates(policy, 4, schedule="cosine") == pytest.approx([1.0, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4])


def test_a_linear_schedule_begins_after_the_warm_up(policy: PolicyModel) -> None:
    assert rates(policy, 5, schedule="linear", warmup=1) == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
async def test_the_engine_samples_from_the_weights_of_the_last_step(
    tiny_model: Path, lora: LoraConfig | None, ask: Ask
) -> None:
    """Whoever keeps weights in a layout of its own is not told of a change in them; it has to look."""
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), lora=lora, device="cpu"))
    optimizer = Optimizer(policy, OptimizerConfig(lr=0.05), total_steps=10)
    async with Engine(policy) as engine:
        for _ in range(3):
            response = await ask(engine, [{"role": "user", "content": "hi"}], max_tokens=8, seed=1)
            (choice,) = response["choices"]
            sampled = [entry["logprob"] for entry in choice["logprobs"]["content"]]
            prompt, answer = response["prompt_token_ids"], choice["token_ids"]
            row = training_row([*prompt, *answer], [*range(len(prompt), len(prompt) + len(answer))])
            (batch,) = make_batches([row], 1000)
            trained = token_logprobs(policy.module, batch).logprobs
            np.testing.assert_allclose(sampled, trained.detach()[0], atol=1e-4)
            trained.sum().backward()
            optimizer.step()


def trained(policy: PolicyModel, optimizer: Optimizer, steps: int) -> dict[str, torch.Tensor]:
    """The weights after so many steps, all in the same direction."""
    for _ in range(steps):
        for weight in policy.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    return {name: weight.float().clone() for name, weight in policy.state().items()}


def test_small_steps_add_up_in_bfloat16_as_they_do_in_float32(tiny_model: Path) -> None:
    """A step of 1e-4 is less than bfloat16 can add to most weights."""
    rough = PolicyModel.load(ModelConfig(path=str(tiny_model), dtype="bfloat16", device="cpu"))
    exact = PolicyModel.load(ModelConfig(path=str(tiny_model), dtype="float32", device="cpu"))
    exact.load_state(rough.state())
    found, expected = (
        trained(one, Optimizer(one, OptimizerConfig(lr=1e-4), total_steps=99), 50) for one in (rough, exact)
    )
    for name, weight in expected.items():
        assert torch.equal(found[name], weight.bfloat16().float()), name


def test_gradients_of_many_micro_batches_add_up_in_float32(tiny_model: Path) -> None:
    """The second is less than bfloat16 can add to the first, and there are a hundred of it."""
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model), dtype="bfloat16", device="cpu"))
    optimizer = Optimizer(policy, OptimizerConfig(lr=1e-4), total_steps=99)
    for scale in (1.0, *[2.0**-9] * 100):
        sum(scale * weight.sum() for weight in policy.parameters()).backward()
    count = sum(weight.numel() for weight in policy.parameters())
    assert optimizer.step() == pytest.approx((1 + 100 * 2.0**-9) * count**0.5, rel=1e-5)


def test_a_restored_optimizer_goes_on_as_if_nothing_had_been(tiny_model: Path, tmp_path: Path) -> None:
    config = ModelConfig(path=str(tiny_model), dtype="bfloat16", device="cpu")
    policy = PolicyModel.load(config)
    optimizer = Optimizer(policy, OptimizerConfig(lr=1e-4), total_steps=99)
    trained(policy, optimizer, 5)
    optimizer.save(tmp_path)
    other = PolicyModel.load(config)
    restored = Optimizer(other, OptimizerConfig(lr=1e-4), total_steps=99)
    restored.load(tmp_path)
    expected = trained(policy, optimizer, 40)
    assert all(torch.equal(weight, expected[name]) for name, weight in trained(other, restored, 40).items())
