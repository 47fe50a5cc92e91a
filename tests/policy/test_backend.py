"""What a run that trains weights refuses before its first rollout, what an update holds in memory, and which weights
answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from policy.rows import rollouts

from agentlightning.errors import PolicyError
from agentlightning.loss import LossConfig
from agentlightning_policy.backend import TorchBackend
from agentlightning_policy.batches import make_batches
from agentlightning_policy.config import LoraConfig, ModelConfig, TorchConfig
from agentlightning_policy.logprobs import token_logprobs

TEMPLATES = {
    "none of the messages": ("<|im_start|>user\nHello.<|im_end|>\n", "shows the model no messages"),
    "only roles": ("{% for message in messages %}<|{{ message.role }}|>{% endfor %}", "shows the model no messages"),
    "refusals": ("{{ raise_exception('no chat') }}", "takes no chat"),
}


@pytest.mark.parametrize(("template", "message"), TEMPLATES.values(), ids=TEMPLATES.keys())
async def test_a_template_that_shows_no_messages_is_refused(
    tiny_model: Path, tmp_path: Path, template: str, message: str
) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(template, encoding="utf-8")
    config = TorchConfig(model=ModelConfig(path=str(tiny_model), device="cpu", chat_template=str(file)))
    backend = TorchBackend(config, name="policy", seed=0, max_updates=1, phase=lambda name, **_: None)
    with pytest.raises(PolicyError, match=message) as refused:
        await backend.start()
    await backend.aclose()
    assert "give another as model.chat_template" in str(refused.value)


async def backward(tiny_model: Path, lora: LoraConfig | None, *, checkpointing: bool) -> tuple[int, torch.Tensor]:
    """Bytes kept for the backward pass of a micro-batch, and its gradients."""
    model = ModelConfig(path=str(tiny_model), device="cpu", lora=lora)
    config = TorchConfig(model=model, gradient_checkpointing=checkpointing)
    backend = TorchBackend(config, name="policy", seed=0, max_updates=1, phase=lambda name, **_: None)
    await backend.start()
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    (batch,) = make_batches(rollouts(), 10_000)
    backend.policy.module.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logprobs = token_logprobs(backend.policy.module, batch).logprobs
    logprobs.sum().backward()
    gradients = [weight.grad.flatten() for weight in backend.policy.parameters() if weight.grad is not None]
    await backend.aclose()
    return kept, torch.cat(gradients)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, dropout=0.0)])
async def test_gradient_checkpointing_keeps_less_and_changes_no_gradient(
    tiny_model: Path, lora: LoraConfig | None
) -> None:
    much, expected = await backward(tiny_model, lora, checkpointing=False)
    little, found = await backward(tiny_model, lora, checkpointing=True)
    assert little < much / 2
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


async def answer(backend: TorchBackend) -> tuple[int, Any]:
    """The version that is published, and what it says at temperature 0, with ids and log-probabilities."""
    policy = await backend.publish()
    asked: Any = [{"role": "user", "content": "23 + 48?"}]
    async with openai.AsyncOpenAI(base_url=policy.base_url, api_key="k", max_retries=0) as client:
        response = await client.chat.completions.create(
            model=policy.model, messages=asked, temperature=0, logprobs=True, extra_body={"return_token_ids": True}
        )
    (choice,) = response.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    return policy.version, (choice.model_extra, [token.logprob for token in choice.logprobs.content])


async def test_weights_that_are_taken_back_while_they_are_served_are_those_that_answer(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = TorchConfig(model=ModelConfig(path=str(tiny_model), device="cpu"), lr=1e-2)
    config.engine.max_tokens = 8
    backend = TorchBackend(config, name="policy", seed=0, max_updates=2, phase=lambda name, **_: None)
    rows = rollouts()
    for row in rows:
        row.advantages[row.mask] = 1.0
    loss = LossConfig(kind="cross_entropy", aggregation="token_mean")
    await backend.start()
    try:
        await backend.update([rows], loss, step=1)
        await asyncio.to_thread(backend.save, tmp_path)
        first = await answer(backend)
        await backend.update([rows], loss, step=2)
        second = await answer(backend)
        await asyncio.to_thread(backend.restore, tmp_path)
        assert await answer(backend) == first != second
        assert (first[0], second[0]) == (1, 2)
    finally:
        await backend.aclose()
