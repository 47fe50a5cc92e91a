"""A sampler behind one HTTP endpoint (vLLM from 0.10.2 on, another gateway)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import numpy as np

from agentlightning.sampler import ModelInfo, SampledToken, SamplingParams
from agentlightning_gateway.endpoint import Endpoint


class OpenAISampler:
    """Samples from the endpoint at ``base_url`` (up to and with ``/v1``).

    ``info`` is what nobody can ask an endpoint. Its ``logprobs`` depend on how the server was started: vLLM's are
    ``raw`` by default; with ``--logprobs-mode processed_logprobs`` they are ``processed``. An answer that states
    another ``logprobs_mode`` is refused.
    """

    def __init__(self, base_url: str, info: ModelInfo, *, api_key: str | None = None) -> None:
        self.info = info
        self._endpoint = Endpoint(base_url, logprobs=info.logprobs, api_key=api_key)

    def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        """See `agentlightning.sampler.Sampler`."""
        return self._endpoint.sample(prompt_ids, params, model=self.info.name)

    async def aclose(self) -> None:
        """See `agentlightning.sampler.HoldsConnections`."""
        await self._endpoint.aclose()
