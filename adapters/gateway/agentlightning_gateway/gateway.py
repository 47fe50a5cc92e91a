"""A sampler behind the OpenAI API."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from agentlightning.adapterkit.listening import is_loopback
from agentlightning.errors import PolicyError
from agentlightning.redaction import remember
from agentlightning.sampler import Sampler
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.completions import Completions, GatewayStats
from agentlightning_gateway.config import KEY_VARIABLE, GatewayConfig
from agentlightning_gateway.server import Prepare, Server


class Gateway:
    """Serves a sampler over the OpenAI API, from a thread of this process::

        async with Gateway(sampler) as gateway:
            client = AsyncOpenAI(base_url=gateway.base_url, api_key="none")

    ``tokenizer`` is read from where the sampler's `ModelInfo` says, unless it is given. ``prepare`` may change
    what is read of a request (`agentlightning_gateway.server.Server`). ``stats`` counts since `start`.

    On loopback it asks for no key; elsewhere every request needs the one in the environment variable `KEY_VARIABLE`.

    Raises `PolicyError` where the port is taken, or that variable is needed and not set.
    """

    def __init__(
        self,
        sampler: Sampler,
        config: GatewayConfig | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.sampler = sampler
        self.config = config or GatewayConfig()
        self.stats = GatewayStats()
        self._tokenizer = tokenizer
        self._prepare = prepare
        self._server: Server | None = None

    @property
    def base_url(self) -> str:
        """Where the API is, up to and with ``/v1``."""
        if self._server is None:
            raise PolicyError("the gateway has not been started: use it as `async with Gateway(sampler) as gateway`")
        host, port = self._server.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    @property
    def api_key_env(self) -> str | None:
        """The environment variable that holds the key which requests must bring; None where they need none."""
        return None if is_loopback(self.config.host) else KEY_VARIABLE

    async def start(self) -> None:
        """Begins to serve."""
        key = self._key()
        info = self.sampler.info
        if self._tokenizer is None:
            self._tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, info.tokenizer)
        completions = Completions(
            self.sampler, Chat(self._tokenizer, info.end_ids, self.config.tool_format), self.config
        )
        server = Server(completions, host=self.config.host, port=self.config.port, key=key, prepare=self._prepare)
        server.start()
        self.stats, self._server = completions.stats, server

    async def stop(self) -> None:
        """Answers what came in, then closes the port. Safe to call twice."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise PolicyError(
                f"the gateway is to listen on {self.config.host}, where others than this machine may ask: set the "
                f"environment variable {self.api_key_env} to a secret of your choice, here and where agents run, or "
                "listen on 127.0.0.1"
            )
        remember(key)
        return key

    async def __aenter__(self) -> Gateway:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
