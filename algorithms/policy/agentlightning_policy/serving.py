"""A trained model served for an agent that nobody changes: the engine, with the run's prompts in every request."""

from __future__ import annotations

from agentlightning.records import Policy
from agentlightning.serving import ModelServer, prepared
from agentlightning_policy.compute import compute_async
from agentlightning_policy.config import EngineConfig, ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.trainer import UNCUT


class TorchServer(ModelServer):
    """The weights in this process."""

    ModelOptions = ModelConfig
    EngineOptions = EngineConfig
    _served: Engine | None = None

    async def start(self) -> Policy:
        policy = await compute_async(PolicyModel.load, self.model)
        self._served = Engine(policy, self.engine, prepare=self._prepare)
        await self._served.start()
        return self._served.resource("policy", **UNCUT)

    async def aclose(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            await served.stop()

    def _prepare(self, body: bytes, operation: str) -> bytes:
        defaults = {"unconstrained": UNCUT["unconstrained"], **self.sampling}
        model = self._served.config.name if self.any_name and self._served is not None else None
        return prepared(body, operation, prompts=self.prompts, model=model, defaults=defaults)
