"""The algorithm ``eval``: the agent on the held-out tasks, and nothing is learned."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.config import PositiveInt
from agentlightning.serving import TORCH, model_server


class EvalConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``model`` and ``engine`` are what algorithms that train weights take; the agents that the config would train call
    this model. Without one every agent calls its own. Each task is run ``samples`` times at ``temperature`` (variant
    ``sampled``) and, with ``greedy``, once at temperature 0; an agent with its own model only ``samples`` times.
    """

    model: dict[str, Any] | None = None
    engine: dict[str, Any] = {}
    server: str = TORCH
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    samples: PositiveInt = 1
    greedy: bool = True


class Eval(Algorithm):
    """Runs the agent on the held-out tasks, with the model of its config or its own."""

    Config: ClassVar[type[msgspec.Struct]] = EvalConfig

    async def run(self, run: Run) -> None:
        config: EvalConfig = self.config
        if config.model is None:
            await run.evaluate(step=0, samples=config.samples)
            return
        run.phase("loading the model")
        server = model_server(config.server)(config.model, config.engine)
        try:
            policy = (await server.start()).sampled_with(temperature=config.temperature)
            await run.publish(policy)
            await run.check()
            await run.evaluate(step=0, variant="sampled", samples=config.samples)
            if config.greedy:
                await run.evaluate(step=0, variant="greedy", resources=[policy.sampled_with(temperature=0.0)])
        finally:
            await server.aclose()
