"""``/v1/completions`` of one server that takes prompts as token ids and gives token ids back, over connections that are
kept."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import msgspec
import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.sampler import LogprobsMode, SampledToken, SamplerUnavailableError, SamplingParams

TRANSIENT = (408, 409, 429)
"""Statuses, beside those from 500 on, with which a server says: not now."""
SECONDS_TO_CONNECT = 10.0
SECONDS_OF_SILENCE = 600.0
"""How long nothing may come of an answer that has begun, or is to begin: a wait has an end."""
SECONDS_KEPT = 4.0
"""How long an idle connection is kept: uvicorn, which vLLM runs in, closes it after 5, maybe under the next request."""


class UnreachableError(SamplerUnavailableError):
    """The server cannot be reached, or went away in the middle of an answer."""


class NoSuchModelError(PolicyError):
    """The server does not know the model that was asked for."""


class Endpoint:
    """The API at ``base_url`` (up to and with ``/v1``). Its answers have log-probabilities of the kind ``logprobs``;
    one that states another is refused."""

    def __init__(self, base_url: str, *, logprobs: LogprobsMode, api_key: str | None = None) -> None:
        self.logprobs = logprobs
        self.url = f"{base_url.rstrip('/')}/completions"
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._verify = certificates(base_url)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def sample(
        self, prompt_ids: np.ndarray, params: SamplingParams, *, model: str
    ) -> AsyncGenerator[SampledToken, None]:
        """The tokens of one answer, as they come; to close the iterator cancels the rest.

        Raises `SamplerUnavailableError` where the server is away (`UnreachableError`) or too busy, `NoSuchModelError`,
        and `PolicyError` where it refuses for another reason.
        """
        try:
            async with self._client().stream("POST", self.url, json=_body(prompt_ids, params, model)) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _error(response.status_code, response.text)
                async with contextlib.aclosing(_parts(response, streamed=params.stream)) as parts:
                    async for part in parts:
                        for token in self._tokens(part):
                            yield token
        except httpx.TransportError as error:
            raise UnreachableError(f"{self.url} cannot be reached: {error!r}") from error

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; those of others, which may have ended, are theirs."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = httpx.AsyncClient(
                timeout=httpx.Timeout(SECONDS_OF_SILENCE, connect=SECONDS_TO_CONNECT),
                limits=httpx.Limits(keepalive_expiry=SECONDS_KEPT),  # as many at once as are asked for
                verify=self._verify,
                headers=self._headers,
            )
        return client

    def _tokens(self, part: Mapping[str, Any]) -> Iterator[SampledToken]:
        if "error" in part:
            raise _error(500, str(part["error"]))
        stated = part.get("logprobs_mode", self.logprobs)
        if (stated, self.logprobs) != ("tempered", "processed") and stated != self.logprobs:
            raise PolicyError(f"{self.url} says that its logprobs are {stated}, not {self.logprobs} as was expected")
        for choice in part["choices"]:
            ids, logprobs = choice.get("token_ids"), choice.get("logprobs") or {}
            values, tops = logprobs.get("token_logprobs") or [], logprobs.get("top_logprobs") or []
            if ids is None or len(ids) != len(values):
                raise PolicyError(
                    f"{self.url} gives no token ids with a logprob each: it must know return_token_ids, as vLLM does "
                    "from 0.10.2 on"
                )
            for index, (id, value) in enumerate(zip(ids, values, strict=True)):
                top = tops[index] if index < len(tops) else None
                yield SampledToken(id, value, part.get("policy_version"), _alternatives(top or {}))


def certificates(url: str) -> ssl.SSLContext | bool:
    """What httpx is to check certificates by; reading those that are trusted takes a while, and plain HTTP has none."""
    return _trusted() if url.startswith("https://") else False


@functools.cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


def _body(prompt_ids: np.ndarray, params: SamplingParams, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": prompt_ids.tolist(),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": params.min_p,
        "repetition_penalty": 1.0,  # vLLM takes what a request leaves out from the model's generation_config.json
        "seed": params.seed % 2**63,
        "max_tokens": params.max_tokens,
        "stop_token_ids": sorted(params.stop_token_ids),
        "logprobs": params.top_logprobs,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "stream": params.stream,
    }


def _alternatives(top: Mapping[str, float]) -> list[tuple[int, float]]:
    return [(int(name.removeprefix("token_id:")), logprob) for name, logprob in top.items()]


async def _parts(response: httpx.Response, *, streamed: bool) -> AsyncGenerator[dict[str, Any], None]:
    """The bodies of a response: of each server-sent event, or the one."""
    if not streamed:
        yield msgspec.json.decode(await response.aread())
        return
    lines: AsyncIterator[str] = response.aiter_lines()
    async for line in lines:
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield msgspec.json.decode(data)


def _error(status: int, text: str) -> PolicyError:
    message = f"the endpoint answered {status}: {text[:500]}"
    if status in TRANSIENT or status >= 500:
        return SamplerUnavailableError(message)
    return NoSuchModelError(message) if status == 404 else PolicyError(message)
