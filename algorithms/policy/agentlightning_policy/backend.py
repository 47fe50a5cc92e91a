"""The backend ``torch``: weights in this process, trained by AdamW and served by the embedded engine."""

from __future__ import annotations

import msgspec

from agentlightning.errors import PolicyError
from agentlightning.records import Policy
from agentlightning_policy.config import TorchConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.trainer import UNCUT, TorchTrainer


class TorchBackend(TorchTrainer):
    """Raises `PolicyError` where the model cannot be loaded or served, or its chat template shows no messages."""

    Config = TorchConfig
    config: TorchConfig

    engine: Engine | None = None
    """What serves it; None before `start` and after `aclose`."""

    async def serve(self) -> None:
        settings = self.config.engine
        engine = Engine(self.policy, msgspec.structs.replace(settings, seed=settings.seed + self.seed), name=self.name)
        await engine.start()
        self.engine = engine

    async def stop_serving(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.stop()

    async def publish(self) -> Policy:
        """The engine serves the weights themselves: a new version is published as it is made."""
        if self.engine is None:
            raise PolicyError(f"the policy {self.name} is not served: the backend has not been started")
        return self.engine.resource(self.name, **UNCUT)
