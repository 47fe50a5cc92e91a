"""What a replica is told beside requests: its weights and adapters, and probes of what it serves."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.sampler import LogprobsMode
from agentlightning_gateway.endpoint import UnreachableError, certificates

SECONDS = httpx.Timeout(600.0, connect=10.0)
"""How long a replica may take to load weights, or to answer a probe behind the requests that it has."""
HEALTH_SECONDS = 10.0
HOT = 2.0
"""A temperature at which raw and processed log-probabilities cannot be mistaken for each other."""
HOT_TOKENS = 16
SAME = 0.15
"""Mean difference up to which two log-probabilities of the same token are of the same kind: bfloat16's is a quarter."""

_DEV_MODE = "start it with VLLM_SERVER_DEV_MODE=1 (on loopback or behind a firewall, as that lets anyone control it)"
_LORA = "start it with --enable-lora, a --max-lora-rank that fits, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"


class ReplicaControl:
    """Of the replica at ``url``. Its methods raise `PolicyError` that says what the replica lacks."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = httpx.AsyncClient(
            base_url=self.url, timeout=SECONDS, headers=headers, verify=certificates(self.url)
        )

    async def healthy(self) -> bool:
        """Whether it answers."""
        try:
            return (await self._client.get("/health", timeout=HEALTH_SECONDS)).is_success
        except httpx.HTTPError:
            return False

    async def models(self) -> list[str]:
        """The names that requests may give as their model: that of the weights, then of each adapter that is loaded."""
        try:
            response = await self._client.get("/v1/models")
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.url}/v1/models cannot be reached: {error!r}") from error
        if not response.is_success:
            raise PolicyError(f"{self.url}/v1/models answered {response.status_code}: {response.text[:500]}")
        return [model["id"] for model in response.json()["data"]]

    async def load_adapter(self, name: str, path: str) -> None:
        """Loads a PEFT adapter from a folder, which requests then name as their model."""
        body = {"lora_name": name, "lora_path": path}
        await self._post("/v1/load_lora_adapter", body, missing=_LORA)

    async def unload_adapter(self, name: str) -> None:
        """Lets an adapter go."""
        await self._post("/v1/unload_lora_adapter", {"lora_name": name}, missing=_LORA)

    async def reload_weights(self) -> None:
        """Reads its model's folder again, and forgets what it computed with the weights before."""
        await self._post("/collective_rpc", {"method": "reload_weights"}, missing=_DEV_MODE)
        await self._post("/reset_prefix_cache", {}, missing=_DEV_MODE)

    async def prompt_logprobs(self, model: str, ids: np.ndarray) -> np.ndarray:
        """Of each token of ``ids`` (T,) but the first: (T − 1,), at temperature 1, as it computes them itself."""
        body = {"model": model, "prompt": ids.tolist(), "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
        answer = await self._post("/v1/completions", body)
        found = answer["choices"][0].get("prompt_logprobs")
        if not found or len(found) != len(ids):
            raise PolicyError(f"{self.url} gives no prompt_logprobs, which its weights are checked by: is it vLLM?")
        values = [found[place][str(id)]["logprob"] for place, id in enumerate(ids.tolist()) if place > 0]
        return np.array(values, np.float64)

    async def logprobs_mode(self, model: str, ids: np.ndarray) -> LogprobsMode:
        """What its log-probabilities are of, by what it says of tokens that it draws at another temperature than 1."""
        body = {
            "model": model,
            "prompt": ids.tolist(),
            "max_tokens": HOT_TOKENS,
            "temperature": HOT,
            "seed": 0,
            "logprobs": 0,
            "return_token_ids": True,
            "ignore_eos": True,
        }
        (choice,) = (await self._post("/v1/completions", body))["choices"]
        drawn = np.array(choice["token_ids"], np.int32)
        raw = (await self.prompt_logprobs(model, np.concatenate([ids, drawn])))[-len(drawn) :]
        said = np.array(choice["logprobs"]["token_logprobs"], np.float64)
        return "raw" if float(np.abs(said - raw).mean()) < SAME else "processed"

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _post(self, path: str, body: dict[str, Any], *, missing: str | None = None) -> Any:
        try:
            response = await self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.url}{path} cannot be reached: {error!r}") from error
        if response.status_code in (404, 405) and missing is not None:
            raise PolicyError(f"{self.url} does not serve {path}: {missing}")
        if not response.is_success:
            raise PolicyError(f"{self.url}{path} answered {response.status_code}: {response.text[:500]}")
        return response.json() if "json" in response.headers.get("content-type", "") else None
