"""Who may ask a gateway that other machines reach."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from conftest import make_tokenizer

import agentlightning as agl
from agentlightning.sampler import ModelInfo, SampledToken, SamplingParams
from agentlightning_gateway.config import KEY_VARIABLE, GatewayConfig
from agentlightning_gateway.gateway import Gateway

EVERYWHERE = GatewayConfig(host="0.0.0.0")
ROUTES = [
    ("GET", "/health"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/rollouts/r/v1/responses"),
    ("GET", "/nowhere"),
]


class Silent:
    """Writes one token."""

    info = ModelInfo(name="m", context_length=64, vocabulary=64, logprobs="tempered", tokenizer="none")

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> Any:
        yield SampledToken(5, -0.5)


def gateway() -> Gateway:
    return Gateway(Silent(), EVERYWHERE, tokenizer=make_tokenizer())


async def test_without_a_key_it_listens_on_loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(agl.errors.PolicyError, match=f"set the environment variable {KEY_VARIABLE}"):
        await gateway().start()


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer another"}, {"authorization": "Bearer kéy"}])
async def test_every_route_needs_the_key(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, headers: dict[str, str]
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-long-secret-1")
    async with gateway() as served, httpx.AsyncClient() as client:
        root = served.base_url.removesuffix("/v1")
        encoded = {name: value.encode() for name, value in headers.items()}
        refused = await client.request(method, root + path, headers=encoded)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert KEY_VARIABLE in refused.text
        assert "a-long-secret-1" not in refused.text
        given = await client.request(method, root + path, headers={"authorization": "Bearer a-long-secret-1"})
        assert given.status_code in (200, 400, 404)
        assert served.api_key_env == KEY_VARIABLE


async def test_on_loopback_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "a-long-secret-1")
    async with Gateway(Silent(), GatewayConfig(), tokenizer=make_tokenizer()) as served, httpx.AsyncClient() as client:
        assert (await client.get(f"{served.base_url}/models")).status_code == 200
        assert served.api_key_env is None
