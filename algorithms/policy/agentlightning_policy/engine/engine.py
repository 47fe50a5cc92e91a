"""The embedded engine: the policy under training, served over the OpenAI API from this very process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from agentlightning.errors import PolicyError
from agentlightning.records import Policy
from agentlightning_policy.config import EngineConfig
from agentlightning_policy.engine.chat import Chat
from agentlightning_policy.engine.completions import Completions
from agentlightning_policy.engine.scheduler import Scheduler, Stats
from agentlightning_policy.engine.server import Server
from agentlightning_policy.model import PolicyModel


class Engine:
    """Serves a policy on loopback, from the weights themselves::

        async with Engine(policy) as engine:
            await run.publish(engine.resource("policy", temperature=1.0))

    Each step of decoding holds the weights (`PolicyModel.reading`); after an update, cached keys and values
    are dropped and answers in the making go on under the new weights. ``policy_version`` in an answer is the
    version that wrote its first token.

    Raises `PolicyError` where the port is taken or the model cannot be served.
    """

    def __init__(self, policy: PolicyModel, config: EngineConfig | None = None) -> None:
        self.policy = policy
        self.config = config or EngineConfig()
        self._server: Server | None = None
        self._scheduler: Scheduler | None = None

    @property
    def base_url(self) -> str:
        """Where the API is, up to and with ``/v1``."""
        if self._server is None:
            raise PolicyError("the engine has not been started: use it as `async with Engine(policy) as engine`")
        host, port = self._server.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @property
    def stats(self) -> Stats:
        """What it has done since it was started."""
        if self._scheduler is None:
            raise PolicyError("the engine has not been started: use it as `async with Engine(policy) as engine`")
        return self._scheduler.stats

    def resource(self, name: str, agents: Iterable[str] = ("*",), **sampling: Any) -> Policy:
        """The policy at its present version, as a run publishes it; ``sampling`` is set on every request."""
        return Policy(
            name=name,
            version=self.policy.version,
            agents=tuple(agents),
            model=self.config.name,
            base_url=self.base_url,
            sampling=sampling,
        )

    async def start(self) -> None:
        """Begins to serve."""
        chat = Chat(self.policy.tokenizer, _end_ids(self.policy))
        scheduler = Scheduler(
            self.policy,
            end_ids=chat.end_ids,
            decode=chat.decode,
            max_batch=self.config.max_batch,
            cache_memory=self.config.cache_memory,
        )
        vocabulary = int(self.policy.base.get_input_embeddings().weight.shape[0])
        completions = Completions(scheduler, chat, self.config, max_context=self._max_context(), vocabulary=vocabulary)
        server = Server(completions, host=self.config.host, port=self.config.port)
        scheduler.start()
        server.start()
        self._scheduler, self._server = scheduler, server

    async def stop(self) -> None:
        """Fails what is not answered yet with 503, and closes the port. Safe to call twice."""
        server, self._server = self._server, None
        if server is None or self._scheduler is None:
            return
        await asyncio.to_thread(self._scheduler.close)
        await asyncio.to_thread(server.stop)

    async def __aenter__(self) -> Engine:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _max_context(self) -> int:
        own = getattr(self.policy.base.config.get_text_config(), "max_position_embeddings", None)
        limits = [limit for limit in (own, self.config.max_context) if limit is not None]
        if not limits:
            raise PolicyError("the model names no longest context: set engine.max_context")
        return min(limits)


def _end_ids(policy: PolicyModel) -> list[int]:
    named = getattr(policy.base.generation_config, "eos_token_id", None)
    return [named] if isinstance(named, int) else list(named or [])
