"""Selection: which of several model endpoints is worth its price, for this agent and these tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from agentlightning.algorithm import Algorithm, Run
from agentlightning.config import changed_keys, refuse_without_effect
from agentlightning.errors import ConfigError
from agentlightning.loading import nearest
from agentlightning_selection.config import (
    CONFIGS,
    ContextualConfig,
    FixedConfig,
    HalvingConfig,
    RacingConfig,
    SelectionConfig,
    ThompsonConfig,
    UCBConfig,
)
from agentlightning_selection.contest import Contest
from agentlightning_selection.fixed import halve, race
from agentlightning_selection.halving import least_budget

_OBJECTIVES = {"cost_weight": ("reward",), "time_weight": ("reward",), "margin": ("cheapest", "fastest")}
"""What counts under some objectives alone."""
_LEARNERS = {
    "nearest": ("cost_limit", "compare_held_out", "neighbours", "temperatures", "folds"),
    "linucb": ("alpha", "regularisation"),
}
"""What counts for one learner alone."""


class Selection(Algorithm):
    """Tries the candidates on the tasks by one of five strategies, and publishes a `ModelChoice`, or a `ModelRouter`
    that chooses for each rollout: `agentlightning_selection.fixed` (``racing``, ``successive_halving``),
    `agentlightning_selection.traffic` (``thompson``, ``ucb``), `agentlightning_selection.contextual`.

    Each collection has a key of its own, and what is decided follows from what was recorded and the run's seed: a run
    that was cut off replays what it has, and goes on.
    """

    Config = RacingConfig

    def __init__(self, config: SelectionConfig) -> None:
        super().__init__(config)
        if len(config.candidates) < 2:
            raise ConfigError(f"algorithm.candidates: expected at least 2 models, got {len(config.candidates)}")
        count = Counter((one.model, one.base_url) for one in config.candidates)
        twice = [model for (model, _), times in count.items() if times > 1]
        if twice:
            raise ConfigError(f"algorithm.candidates: {twice[0]} is there twice")
        refuse_without_effect(changed_keys(config), _unused(config), at="algorithm")
        _check_budget(config)
        if isinstance(config, ContextualConfig) and None not in (config.quality_price, config.cost_limit):
            raise ConfigError("algorithm.cost_limit: it finds the quality_price, so only one of them can be given")

    @classmethod
    def config_type(cls, section: Mapping[str, Any]) -> type[msgspec.Struct]:
        strategy = section.get("strategy", "racing")
        if strategy not in CONFIGS:
            hint = nearest(str(strategy), CONFIGS)
            raise ConfigError(f"algorithm.strategy: there is no strategy {strategy!r}{hint}")
        return CONFIGS[strategy]

    async def run(self, run: Run) -> None:
        config, contest = self.config, Contest(run, self.config)
        if isinstance(config, RacingConfig):
            await race(contest, config)
        elif isinstance(config, HalvingConfig):
            await halve(contest, config)
        elif isinstance(config, ThompsonConfig | UCBConfig):
            from agentlightning_selection.traffic import allot

            await allot(contest, config)
        else:
            from agentlightning_selection.contextual import learn_linucb, learn_nearest

            await (learn_nearest if config.learner == "nearest" else learn_linucb)(contest, config)


def _unused(config: SelectionConfig) -> dict[str, str]:
    """Keys without effect, and where they would have one."""
    if isinstance(config, FixedConfig):
        return {
            key: f"objective is {' or '.join(objectives)}"
            for key, objectives in _OBJECTIVES.items()
            if config.objective not in objectives
        }
    if isinstance(config, ContextualConfig):
        other = "linucb" if config.learner == "nearest" else "nearest"
        unused = dict.fromkeys(_LEARNERS[other], f"learner is {other}")
        return {**unused, "confidence": "learner is nearest"} if config.learner == "linucb" else unused
    return {}


def _check_budget(config: SelectionConfig) -> None:
    """Raises `ConfigError` where a budget is too small for one task."""
    models = len(config.candidates)
    least = 1
    if isinstance(config, HalvingConfig):
        least = least_budget(models, config.eta)
    elif isinstance(config, RacingConfig):
        least = models
    elif isinstance(config, ContextualConfig) and config.learner == "nearest":
        least = models * config.folds
    budget = getattr(config, "budget", None)
    if budget is not None and budget < least:
        raise ConfigError(
            f"algorithm.budget: expected at least {least} rollouts, for {models} candidates, got {budget}"
        )
