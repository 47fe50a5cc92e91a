"""Fine-tuning on the agent's own best rollouts (expert iteration, Anthony et al. 2017; RAFT, Dong et al. 2023), or on
demonstrations, or on the best that was recorded of a deployed agent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import msgspec

from agentlightning.algorithm import Run
from agentlightning.config import refuse_without_effect
from agentlightning.data import batch_of_step
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.loss import LossConfig
from agentlightning.policies import Policies
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.recorded import FromLive, begin_of
from agentlightning.training_rows import Group, TrainingRow
from agentlightning_gateway.chat import Chat
from agentlightning_sft.config import SFTConfig
from agentlightning_sft.demonstrations import load_demonstrations
from agentlightning_sft.recorded import rows_of_recorded
from agentlightning_sft.selection import best_rollouts

_OF_ROLLOUTS = {
    field.name: field.default
    for field in msgspec.structs.fields(SFTConfig)
    if field.name in ("group_size", "informative_groups", "keep", "threshold")
}
"""What says how rollouts are collected and chosen, with its defaults."""


class SFT(PolicyGradient):
    """Runs each task several times, keeps the best rollouts that are good enough, and learns to write them again; or
    learns to write what demonstrations show, or what was recorded (`agentlightning.recorded`).

    As a policy gradient: the advantage is 1 in the rollouts that are kept and 0 elsewhere, the loss is the
    cross-entropy at temperature 1, whatever they were sampled with. Raises `DataError` for demonstrations that cannot
    be read.
    """

    Config = SFTConfig
    config: SFTConfig
    backend_defaults = {"lr": 1e-5}
    loss = LossConfig(kind="cross_entropy", aggregation="token_mean")

    def __init__(self, config: SFTConfig) -> None:
        super().__init__(config)
        if not 1 <= config.keep <= config.group_size:
            raise ConfigError(f"algorithm.keep: expected 1 to group_size ({config.group_size}), got {config.keep}")
        if config.demonstrations is not None:
            changed = [name for name, default in _OF_ROLLOUTS.items() if getattr(config, name) != default]
            refuse_without_effect(changed, dict.fromkeys(changed, "there are no demonstrations"), at="algorithm")
            if config.policies:
                raise ConfigError(
                    "algorithm.policies: demonstrations name no agent, and teach one policy; leave it out"
                )
        if config.from_live is not None:
            _check_from_live(config, config.from_live)
        self._demonstrations: list[TrainingRow] = []
        self._best = -math.inf

    async def begin(self, run: Run, policies: Policies) -> None:
        self._seed = run.seed
        if self.config.demonstrations is not None:
            (backend,) = policies.backends.values()
            chat = Chat(backend.tokenizer, ())
            self._demonstrations = await asyncio.to_thread(
                load_demonstrations, self.config.demonstrations, chat, policy=backend.name
            )
        if self.config.from_live is not None:
            (backend,) = policies.backends.values()
            threshold = self.config.threshold if self.config.from_live.top is None else None
            recorded = await run.recorded(self.config.from_live, threshold=threshold)
            self._demonstrations = await asyncio.to_thread(
                rows_of_recorded, recorded, Chat(backend.tokenizer, ()), policy=backend.name, agents=run.train
            )

    async def check(self, run: Run) -> None:
        if not self._demonstrations:
            await super().check(run)

    async def collect(self, run: Run, step: int) -> list[Group]:
        return [] if self._demonstrations else await super().collect(run, step)

    def assign_credit(self, groups: Sequence[Group]) -> None:
        for group in groups:
            for member in group.rollouts:
                member.set_advantage(0.0)
                self._best = max(self._best, member.rollout.total_reward or 0.0)
            for member in best_rollouts(group, keep=self.config.keep, threshold=self.config.threshold):
                member.set_advantage(1.0)

    def informs(self, group: Group) -> bool:
        return bool(best_rollouts(group, keep=self.config.keep, threshold=self.config.threshold))

    def select(self, groups: Sequence[Group], step: int) -> list[list[TrainingRow]]:
        if self._demonstrations:
            return [[row] for row in batch_of_step(self._demonstrations, self.config.batch_tasks, step, self._seed)]
        kept = [row for group in groups for row in group.rows if row.advantages.any()]
        return [[msgspec.structs.replace(row, temperature=1.0)] for row in kept]

    def conclude(self, policies: Policies) -> None:
        if policies.version == 0:
            raise AlgorithmError(
                f"no rollout reached a reward of {self.config.threshold}, the best has {self._best:g}: "
                "lower algorithm.threshold, raise group_size, or begin with demonstrations"
            )


def _check_from_live(config: SFTConfig, from_live: FromLive) -> None:
    """Raises `ConfigError` for what does not go with recorded rollouts."""
    if config.demonstrations is not None:
        raise ConfigError("algorithm.from_live: there are demonstrations to learn from; leave one of them out")
    unused = {
        name: default for name, default in _OF_ROLLOUTS.items() if name != "threshold" or from_live.top is not None
    }
    changed = [name for name, default in unused.items() if getattr(config, name) != default]
    where = dict.fromkeys(unused, "nothing is learned from a live run")
    if from_live.top is not None:
        where["threshold"] = "from_live.top is not given"
    refuse_without_effect(changed, where, at="algorithm")
    if config.policies:
        raise ConfigError("algorithm.policies: what was recorded teaches one policy; leave it out")
    begin_of(from_live.since)
