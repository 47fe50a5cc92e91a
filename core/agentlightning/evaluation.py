"""The algorithm ``eval``: the agent on the held-out tasks, and nothing is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.config import PositiveInt
from agentlightning.serving import TORCH, UNTRAINED, server_for_agents


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
    """Runs the agent on the held-out tasks, with the model of its config or its own.

    Raises `ConfigError` for an option that has no effect, and for what the server of the model refuses.
    """

    Config: ClassVar[type[msgspec.Struct]] = EvalConfig
    config: EvalConfig

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        self._server = server_for_agents(config, with_model=("engine", "server", "temperature", "greedy"))

    async def run(self, run: Run) -> None:
        if self._server is None:
            await run.evaluate(step=0, samples=self.config.samples)
            return
        run.phase("loading the model")
        try:
            policy = (await self._server.start()).sampled_with(temperature=self.config.temperature)
            await run.publish(policy)
            await run.check()
            await run.evaluate(step=0, variant="sampled", samples=self.config.samples)
            if self.config.greedy:
                await run.evaluate(step=0, variant="greedy", resources=[policy.sampled_with(temperature=0.0)])
        finally:
            await self._server.aclose()


def untrained(section: Mapping[str, Any], *, model: str | None = None, own: bool = False) -> dict[str, Any]:
    """The section ``eval`` that evaluates what an algorithm's ``section`` begins with: its model, served and sampled in
    the same way. ``model`` is another one's folder or name; ``own`` leaves the agents their own."""
    algorithm = {**section, **(section.get("evaluate") or {})}
    trained = algorithm.get("model") or {}
    found: dict[str, Any] = {"name": "eval"}
    if not own and (trained or model is not None):
        found["model"] = {name: value for name, value in trained.items() if name not in UNTRAINED}
        found |= {name: algorithm[name] for name in ("engine", "server", "temperature", "greedy") if name in algorithm}
        if model is not None:
            found["model"]["path"] = model
    if "samples" in algorithm:
        found["samples"] = algorithm["samples"]
    return found
