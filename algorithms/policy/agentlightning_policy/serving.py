"""A trained model served for an agent that nobody changes: the engine, with the run's prompts in every request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agentlightning.config import decode_section
from agentlightning.records import Policy, Prompt
from agentlightning.serving import ModelServer, prepared
from agentlightning_policy.backend import UNCUT
from agentlightning_policy.config import EngineConfig, ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel


class TorchServer(ModelServer):
    """The weights in this process."""

    def __init__(
        self,
        model: Mapping[str, Any],
        engine: Mapping[str, Any],
        *,
        prompts: Sequence[Prompt] = (),
        any_name: bool = False,
    ) -> None:
        self._model = decode_section(dict(model), ModelConfig, at="algorithm.model")
        self._config = decode_section(dict(engine), EngineConfig, at="algorithm.engine")
        self._prompts = list(prompts)
        self._any_name = any_name
        self._engine: Engine | None = None

    async def start(self) -> Policy:
        policy = await asyncio.to_thread(PolicyModel.load, self._model)
        self._engine = Engine(policy, self._config, prepare=self._prepare)
        await self._engine.start()
        return self._engine.resource("policy", **UNCUT)

    async def aclose(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.stop()

    def _prepare(self, body: bytes, operation: str) -> bytes:
        defaults = {"unconstrained": UNCUT["unconstrained"]}
        model = self._config.name if self._any_name else None
        return prepared(body, operation, prompts=self._prompts, model=model, defaults=defaults)
