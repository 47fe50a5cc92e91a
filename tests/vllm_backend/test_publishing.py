"""Requests and weights, through the backend, against servers that speak what vLLM does."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from like_vllm import LikeVllm

from agentlightning.errors import PolicyError
from agentlightning.records import Policy
from agentlightning_policy.config import LoraConfig, ModelConfig, ServingConfig
from agentlightning_vllm import recovery, sampler
from agentlightning_vllm.backend import VllmBackend
from agentlightning_vllm.config import VllmConfig, VllmOptions

LORA = LoraConfig(rank=4)
KINDS = pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(recovery, "FIRST_PAUSE", 0.05)


@pytest.fixture
async def servers(tiny_model: Path, tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[list[LikeVllm]]]]:
    made: list[LikeVllm] = []

    async def start(count: int, lora: LoraConfig | None, **options: Any) -> list[LikeVllm]:
        shutil.copytree(tiny_model, tmp_path / "weights")
        for _ in range(count):
            server = LikeVllm(tmp_path / "weights", lora)
            for name, value in options.items():
                setattr(server, name, value)
            await server.start()
            made.append(server)
        return made

    yield start
    for server in made:
        await server.aclose()


@asynccontextmanager
async def backend(tiny_model: Path, servers: list[LikeVllm], lora: LoraConfig | None) -> AsyncIterator[VllmBackend]:
    config = VllmConfig(
        model=ModelConfig(path=str(tiny_model), device="cpu", lora=lora),
        engine=ServingConfig(max_tokens=6, max_context=256),
        vllm=VllmOptions(urls=[server.url for server in servers], folder=str(servers[0].folder)),
    )
    made = VllmBackend(config, name="policy", seed=0, max_updates=4, phase=lambda name, **_: None)
    try:
        await made.start()
        yield made
    finally:
        await made.aclose()


def change(backend: VllmBackend, scale: float = 0.05) -> None:
    """As an update does."""
    generator = torch.Generator().manual_seed(backend.policy.version)
    with backend.policy.updating(), torch.no_grad():
        for weight in backend.policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)


async def ask(policy: Policy, **fields: Any) -> dict[str, Any]:
    body = {
        "model": policy.model,
        "messages": [{"role": "user", "content": "23 + 48?"}],
        "logprobs": True,
        "return_token_ids": True,
        "seed": 3,
        **fields,
    }
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(f"{policy.base_url}/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@KINDS
async def test_each_version_reaches_every_replica(tiny_model: Path, servers: Any, lora: LoraConfig | None) -> None:
    started = await servers(2, lora)
    async with backend(tiny_model, started, lora) as made:
        for version in range(3):
            policy = await made.publish()
            assert policy.version == version
            answer = await ask(policy)
            assert answer["policy_version"] == version
            for server in started:
                assert torch.equal(server.policy.parameters()[-1], made.policy.parameters()[-1])
                assert len(server.adapters) == (1 if lora else 0)
            pushed = made._publisher.published
            await made.publish()  # the same weights
            assert made._publisher.published is pushed
            change(made)
        if lora:
            assert len(list(started[0].folder.glob("policy-*"))) == 1


@KINDS
async def test_a_replica_that_keeps_its_weights_is_out(tiny_model: Path, servers: Any, lora: LoraConfig | None) -> None:
    started = await servers(2, lora)
    async with backend(tiny_model, started, lora) as made:
        await made.publish()
        change(made)
        started[0].stale = True
        policy = await made.publish()
        assert made.replicas is not None
        assert [replica.url for replica in made.replicas.in_service] == [started[1].url]
        assert f"{started[0].url} does not serve version 1" in made.replicas.reasons
        before = started[0].asked
        assert (await ask(policy))["policy_version"] == 1
        assert started[0].asked == before
        change(made)
        started[1].stale = True
        with pytest.raises(PolicyError, match="does not serve version 2"):
            await made.publish()


@KINDS
async def test_a_replica_that_was_away_is_in_again_with_the_present_weights(
    tiny_model: Path, servers: Any, lora: LoraConfig | None
) -> None:
    (server,) = await servers(1, lora)
    async with backend(tiny_model, [server], lora) as made:
        await made.publish()
        change(made)
        policy = await made.publish()
        await server.stop()
        asking = asyncio.create_task(ask(policy))
        server.adapters.clear()
        await server.start()
        answer = await asyncio.wait_for(asking, 60)
        assert answer["policy_version"] == 1
        assert made.replicas is not None
        assert made.replicas.reasons == ""


async def test_requests_are_tried_again(tiny_model: Path, servers: Any) -> None:
    (server,) = await servers(1, LORA)
    async with backend(tiny_model, [server], LORA) as made:
        policy = await made.publish()
        asked = server.asked
        for status in (408, 409, 429, 500, 503):
            server.refusals = [status, status]
            await ask(policy)
        assert server.asked == asked + 5
        server.refusals = [400]
        async with httpx.AsyncClient(timeout=60) as client:
            body = {"model": policy.model, "messages": [{"role": "user", "content": "?"}]}
            answer = await client.post(f"{policy.base_url}/chat/completions", json=body)
        assert (answer.status_code, server.refusals) == (500, [])


async def test_weights_cannot_be_pushed_without_the_control_routes(tiny_model: Path, servers: Any) -> None:
    started = await servers(1, None, dev_mode=False)
    async with backend(tiny_model, started, None) as made:
        with pytest.raises(PolicyError, match="start it with VLLM_SERVER_DEV_MODE=1"):
            await made.publish()


async def test_the_trained_models_own_folder_is_not_overwritten(tiny_model: Path) -> None:
    config = VllmConfig(
        model=ModelConfig(path=str(tiny_model), device="cpu"),
        vllm=VllmOptions(urls=["http://127.0.0.1:9"], folder=str(tiny_model)),
    )
    made = VllmBackend(config, name="policy", seed=0, max_updates=1, phase=lambda name, **_: None)
    with pytest.raises(PolicyError, match=r"model\.path, which would be overwritten"):
        await made.start()
    await made.aclose()
