"""A tiny policy and what tests ask of its engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentlightning_policy.engine import Engine, EngineConfig
from agentlightning_policy.model import ModelConfig, PolicyModel
from agentlightning_policy.sampler import scheduler

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def policy(tiny_model: Path) -> PolicyModel:
    return PolicyModel.load(ModelConfig(path=str(tiny_model)))


@pytest.fixture
async def engine(policy: PolicyModel) -> AsyncIterator[Engine]:
    async with Engine(policy, EngineConfig(max_context=1024, max_tokens=16)) as engine:
        yield engine


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


@pytest.fixture
def ask(client: httpx.AsyncClient) -> Ask:
    """``await ask(engine, messages, rollout="r", **fields of the request)`` → the response, decoded."""

    async def ask(engine: Engine, messages: list[dict[str, Any]], *, rollout: str | None = None, **options: Any) -> Any:
        body = {"model": "policy", "messages": messages, "return_token_ids": True, "logprobs": True, **options}
        headers = {"x-agentlightning-rollout": rollout} if rollout else {}
        response = await client.post(f"{engine.base_url}/chat/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    return ask


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """``write(ids)`` makes the model write ``ids`` next, whatever it would have drawn."""

    def write(ids: list[int]) -> None:
        left = list(ids)
        draw = scheduler.draw

        def forced(*arguments: Any) -> Any:
            drawn = draw(*arguments)
            for token in drawn:
                token.id = left.pop(0) if left else token.id
            return drawn

        monkeypatch.setattr(scheduler, "draw", forced)

    return write
