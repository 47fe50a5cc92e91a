"""What the engine samples, and with which log-probability, is what plain transformers computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import LoraConfig, ModelConfig, PolicyModel
from transformers import AutoModelForCausalLM

TOOLS = [{"type": "function", "function": {"name": "calculator", "description": "adds", "parameters": {}}}]


def chat(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


async def ask(client: httpx.AsyncClient, engine: Engine, messages: list[dict[str, Any]], **options: Any) -> Any:
    rollout = options.pop("rollout", None)
    body = {"model": "policy", "messages": messages, "return_token_ids": True, "logprobs": True, **options}
    headers = {"x-agentlightning-rollout": rollout} if rollout else {}
    response = await client.post(f"{engine.base_url}/chat/completions", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def assert_exact(module: torch.nn.Module, answer: Any, temperature: float = 1.0) -> None:
    """The answer's log-probabilities are those of one plain forward pass over prompt and answer."""
    prompt = answer["prompt_token_ids"]
    for choice in answer["choices"]:
        ids = torch.tensor([prompt + choice["token_ids"]])
        with torch.no_grad():
            logits = module(ids).logits[0, len(prompt) - 1 : -1].float() / temperature
        expected = torch.log_softmax(logits, -1).gather(1, ids[0, len(prompt) :, None])[:, 0]
        given = torch.tensor([token["logprob"] for token in choice["logprobs"]["content"]])
        torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
async def test_greedy_answers_equal_those_of_transformers(tiny_model_of: Callable[[str], Path], family: str) -> None:
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model_of(family))))
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_of(family))
    system = ("system", "You are a helpful assistant. " * 8)
    prompts = [chat(system, ("user", "How many apples? " * size)) for size in (1, 3, 3, 9, 20)] + [chat(("user", "hi"))]
    async with Engine(policy) as engine, httpx.AsyncClient(timeout=60) as client:
        together = [ask(client, engine, prompt, temperature=0, max_tokens=24) for prompt in prompts]
        import asyncio

        for answer in await asyncio.gather(*together):
            ids = torch.tensor([answer["prompt_token_ids"]])
            expected = plain.generate(ids, do_sample=False, max_new_tokens=24)[0, ids.shape[1] :].tolist()
            assert answer["choices"][0]["token_ids"] == expected
            assert_exact(plain, answer)
