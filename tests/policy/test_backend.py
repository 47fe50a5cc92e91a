"""What a run that trains weights refuses before its first rollout, and what an update holds in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy.rows import rollouts

from agentlightning.errors import PolicyError
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
