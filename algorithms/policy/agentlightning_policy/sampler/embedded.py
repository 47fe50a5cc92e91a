"""The policy under training as a sampler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import numpy as np

from agentlightning.sampler import SampledToken, SamplingParams
from agentlightning_policy.config import EngineConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.sampler.info import model_info
from agentlightning_policy.sampler.sampling import COLDEST
from agentlightning_policy.sampler.scheduler import Scheduler, SequenceState, Stats


class EmbeddedSampler:
    """Samples from the weights of ``policy``, all requests as one continuous batch.

    Each step of decoding holds the weights (`PolicyModel.reading`); after an update, cached keys and values
    are dropped and answers in the making go on under the new weights.

    Raises `PolicyError` where the model cannot be served.
    """

    def __init__(self, policy: PolicyModel, config: EngineConfig) -> None:
        self.info = model_info(policy, config, logprobs="tempered")
        self._scheduler = Scheduler(
            policy, max_batch=config.max_batch, cache_memory=config.cache_memory, pack_weights=config.pack_weights
        )

    @property
    def stats(self) -> Stats:
        """What it has done since it was started."""
        return self._scheduler.stats

    def start(self) -> None:
        """Begins to take requests."""
        self._scheduler.start()

    def close(self) -> None:
        """Fails what is not finished with `SamplerUnavailableError`."""
        self._scheduler.close()

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        """See `agentlightning.sampler.Sampler`."""
        if params.temperature < COLDEST:
            params = msgspec.structs.replace(params, temperature=0.0)
        loop, progress = asyncio.get_running_loop(), asyncio.Event()
        sequence = SequenceState(prompt_ids, params, lambda: loop.call_soon_threadsafe(progress.set))
        self._scheduler.submit(sequence)
        sent = 0
        try:
            while True:
                await progress.wait()
                progress.clear()
                done = sequence.done
                while sent < len(sequence.tokens):
                    sent += 1
                    yield sequence.tokens[sent - 1]
                if sequence.error is not None:
                    raise sequence.error
                if done:
                    return
        finally:
            if not sequence.done:
                self._scheduler.cancel(sequence)
