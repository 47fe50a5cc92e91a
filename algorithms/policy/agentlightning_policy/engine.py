"""The engine: the policy under training, served over the OpenAI API from this very process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import msgspec

from agentlightning.records import Policy
from agentlightning_gateway.gateway import Gateway
from agentlightning_gateway.server import Prepare
from agentlightning_policy.config import EngineConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.sampler import EmbeddedSampler

__all__ = ["Engine", "EngineConfig"]


class Engine:
    """A gateway before an embedded sampler: serves a policy on loopback, from the weights themselves::

        async with Engine(policy) as engine:
            await run.publish(engine.resource("policy", temperature=1.0))

    ``name`` is the model's in the API where the config has none. Raises `PolicyError` where the port is taken or the
    model cannot be served.
    """

    def __init__(
        self,
        policy: PolicyModel,
        config: EngineConfig | None = None,
        *,
        name: str = "policy",
        prepare: Prepare | None = None,
    ) -> None:
        self.policy = policy
        config = config or EngineConfig()
        self.config = config if config.name != "" else msgspec.structs.replace(config, name=name)
        self.sampler = EmbeddedSampler(policy, self.config)
        self.gateway = Gateway(self.sampler, self.config, tokenizer=policy.tokenizer, prepare=prepare)

    @property
    def base_url(self) -> str:
        """Where the API is, up to and with ``/v1``."""
        return self.gateway.base_url

    def resource(self, name: str, agents: Iterable[str] = ("*",), **sampling: Any) -> Policy:
        """The policy at its present version, as a run publishes it; ``sampling`` is set on every request."""
        return Policy(
            name=name,
            version=self.policy.version,
            agents=tuple(agents),
            model=self.config.name,
            base_url=self.base_url,
            api_key_env=self.gateway.api_key_env,
            sampling=sampling,
        )

    async def start(self) -> None:
        """Begins to serve."""
        await self.gateway.start()
        self.sampler.start()

    async def stop(self) -> None:
        """Fails what is not answered yet with 503, and closes the port. Safe to call twice."""
        await asyncio.to_thread(self.sampler.close)
        await self.gateway.stop()

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
