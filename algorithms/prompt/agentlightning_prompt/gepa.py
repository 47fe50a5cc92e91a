"""GEPA: reflective prompt evolution, by the package of its authors."""

from __future__ import annotations

import logging
import shutil
from typing import Any, ClassVar

import msgspec
from gepa.api import optimize
from gepa.core.result import GEPAResult

from agentlightning_prompt.bridge import Bridge
from agentlightning_prompt.gepa_bridge import Adapter, AffordableValidation, PairedImprovement, Watch
from agentlightning_prompt.search import Ground, PromptSearch, SearchConfig, Winner

logger = logging.getLogger(__name__)

FOLDER = "gepa"
"""Where in the run's folder the package keeps its own records."""


class GEPA(PromptSearch):
    """GEPA (Agrawal et al. 2025, "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", algorithm
    1), by the package ``gepa``.

    A step takes a candidate from the Pareto front over the validation tasks, runs it on a minibatch, shows what
    happened to the model that reflects, and runs the prompt which that proposes on the same minibatch; where it is
    better there it is validated, and may be a parent itself.

    A step begins where the budget has room for both minibatches and half of the validation tasks; a candidate that the
    budget cannot validate on all of them is compared on those that it can. A run that was cut off asks for the same
    rollouts and replies again, and is given those that were recorded: the package's own state does not hold its random
    numbers, so that a search resumed from it would be another one.
    """

    Config: ClassVar[type[msgspec.Struct]] = SearchConfig

    async def search(self, ground: Ground) -> Winner:
        bridge = Bridge()
        adapter = Adapter(ground, bridge, show_expected=self.config.show_expected)
        policy = AffordableValidation(ground, bridge)
        watch = Watch(ground, bridge, adapter, policy, minibatch=self.config.minibatch, steps=self.config.steps)
        callbacks: list[Any] = [watch]  # the package's protocol has a method for each of its events
        folder = ground.run.directory / FOLDER
        shutil.rmtree(folder, ignore_errors=True)

        def optimized() -> GEPAResult[str, int]:
            return optimize(
                seed_candidate=ground.trials.own(),
                trainset=list(ground.run.tasks),
                valset=list(ground.validation),
                adapter=adapter,
                reflection_minibatch_size=self.config.minibatch,
                perfect_score=self.config.perfect_score,
                acceptance_criterion=PairedImprovement(ground),
                val_evaluation_policy=policy,
                stop_callbacks=watch,
                callbacks=callbacks,
                logger=_Log(),
                run_dir=str(folder),
                track_best_outputs=False,
                seed=ground.run.seed,
            )

        result = await bridge.serve(optimized)
        steps = adapter.step
        if watch.why_ended is not None:
            ground.run.stopped(step=steps, reason=watch.why_ended)
        unused = ground.trials.unused
        if unused:
            logger.warning("%d rollouts were paid for, and nothing was decided by them", unused)
        return Winner(candidate=result.candidates[policy.best_of(result.val_subscores)], steps=steps)


class _Log:
    """What the package says, in the run's log."""

    def log(self, message: Any) -> None:
        logger.info("%s", message)
