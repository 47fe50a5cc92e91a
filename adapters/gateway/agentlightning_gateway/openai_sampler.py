"""A sampler behind an HTTP endpoint: ``/v1/completions`` of any server that takes prompts as token ids and gives token
ids back (vLLM from 0.10.2 on, another gateway)."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import httpx
import msgspec
import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.sampler import ModelInfo, SampledToken, SamplerUnavailableError, SamplingParams

UNAVAILABLE = (429, 502, 503, 504)
SECONDS_TO_CONNECT = 10.0
SECONDS_OF_SILENCE = 600.0
"""How long nothing may come of an answer that has begun, or is to begin: a wait has an end."""


class OpenAISampler:
    """Samples from the endpoint at ``base_url`` (up to and with ``/v1``).

    ``info`` is what nobody can ask an endpoint. Its ``logprobs`` depend on how the server was started: vLLM's are
    ``raw`` by default; with ``--logprobs-mode processed_logprobs`` they are ``tempered``, but cut by top-k and top-p
    already, so that no request may ask for these. An answer that states another ``logprobs_mode`` is refused.
    """

    def __init__(self, base_url: str, info: ModelInfo, *, api_key: str | None = None) -> None:
        self.info = info
        self._url = f"{base_url.rstrip('/')}/completions"
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._certificates = ssl.create_default_context()

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        """See `agentlightning.sampler.Sampler`."""
        timeout = httpx.Timeout(SECONDS_OF_SILENCE, connect=SECONDS_TO_CONNECT)
        try:
            async with (
                # a client of its own, as it must not outlive the event loop of whoever iterates
                httpx.AsyncClient(timeout=timeout, verify=self._certificates, headers=self._headers) as client,
                client.stream("POST", self._url, json=self._body(prompt_ids, params)) as response,
            ):
                if response.status_code != 200:
                    await response.aread()
                    raise _error(response.status_code, response.text)
                async for part in _parts(response, streamed=params.stream):
                    for token in self._tokens(part):
                        yield token
        except httpx.TransportError as error:
            raise SamplerUnavailableError(f"{self._url} cannot be reached: {error!r}") from error

    def _body(self, prompt_ids: np.ndarray, params: SamplingParams) -> dict[str, Any]:
        return {
            "model": self.info.name,
            "prompt": prompt_ids.tolist(),
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "seed": params.seed % 2**63,
            "max_tokens": params.max_tokens,
            "stop_token_ids": sorted(params.stop_token_ids),
            "logprobs": params.top_logprobs,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "stream": params.stream,
        }

    def _tokens(self, part: Mapping[str, Any]) -> Iterator[SampledToken]:
        if "error" in part:
            raise _error(500, str(part["error"]))
        stated = part.get("logprobs_mode", self.info.logprobs)
        if stated != self.info.logprobs:
            raise PolicyError(
                f"{self._url} says that its logprobs are {stated}, not {self.info.logprobs} as was expected"
            )
        for choice in part["choices"]:
            ids, logprobs = choice.get("token_ids"), choice.get("logprobs") or {}
            values, tops = logprobs.get("token_logprobs") or [], logprobs.get("top_logprobs") or []
            if ids is None or len(ids) != len(values):
                raise PolicyError(
                    f"{self._url} gives no token ids with a logprob each: it must know return_token_ids, as vLLM does "
                    "from 0.10.2 on"
                )
            for index, (id, value) in enumerate(zip(ids, values, strict=True)):
                top = tops[index] if index < len(tops) else None
                yield SampledToken(id, value, part.get("policy_version"), _alternatives(top or {}))


def _alternatives(top: Mapping[str, float]) -> list[tuple[int, float]]:
    return [(int(name.removeprefix("token_id:")), logprob) for name, logprob in top.items()]


async def _parts(response: httpx.Response, *, streamed: bool) -> AsyncIterator[dict[str, Any]]:
    """The bodies of a response: of each server-sent event, or the one."""
    if not streamed:
        yield msgspec.json.decode(await response.aread())
        return
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield msgspec.json.decode(data)


def _error(status: int, text: str) -> PolicyError:
    kind = SamplerUnavailableError if status in UNAVAILABLE else PolicyError
    return kind(f"the endpoint answered {status}: {text[:500]}")
