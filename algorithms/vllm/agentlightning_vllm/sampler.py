"""Prompt ids in, tokens out, by one of the replicas."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np

from agentlightning.errors import PolicyError
from agentlightning.sampler import ModelInfo, SampledToken, SamplerUnavailableError, SamplingParams
from agentlightning_gateway.endpoint import NoSuchModelError, UnreachableError
from agentlightning_vllm.replicas import Lease, ReplicaSet, conversation

logger = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Seconds before a request is tried again: twice as long each time, of which a random half is left out."""


class ReplicaSampler:
    """Samples from the replicas of a policy (`agentlightning.sampler.Sampler`).

    A request that fails before its first token has been given on is tried again, by whichever replica is then best. One
    that cannot be reached, or has lost the weights, is out.
    """

    def __init__(self, replicas: ReplicaSet, info: ModelInfo) -> None:
        self.info = info
        self._replicas = replicas
        self._jitter = random.Random()

    async def generate(self, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
        """See `agentlightning.sampler.Sampler`."""
        key = conversation(prompt_ids, params.rollout)
        for attempt in range(1, ATTEMPTS + 1):
            lease, given = await self._replicas.lease(key), False
            try:
                async with aclosing(_answer(lease, prompt_ids, params)) as tokens:
                    async for token in tokens:
                        given = True
                        yield token
                return
            except (SamplerUnavailableError, NoSuchModelError) as error:
                self._note(lease, error)
                if given or attempt == ATTEMPTS:
                    raise SamplerUnavailableError(str(error)) from error
            finally:
                self._replicas.release(lease)
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE)
            await asyncio.sleep(pause * self._jitter.uniform(0.5, 1.0))

    async def aclose(self) -> None:
        """See `agentlightning.sampler.HoldsConnections`."""
        for replica in self._replicas.replicas:
            await replica.endpoint.aclose()

    def _note(self, lease: Lease, error: PolicyError) -> None:
        logger.info("%s: %s", lease.replica.url, error)
        if isinstance(error, UnreachableError | NoSuchModelError):
            self._replicas.put_out(lease.replica, str(error))


async def _answer(lease: Lease, prompt_ids: np.ndarray, params: SamplingParams) -> AsyncGenerator[SampledToken, None]:
    """The tokens of a replica, each with the version of the weights that wrote it."""
    sampled = lease.replica.endpoint.sample(prompt_ids, params, model=lease.served.model)
    async with aclosing(sampled) as tokens:
        async for token in tokens:
            token.policy_version = lease.served.version
            yield token
