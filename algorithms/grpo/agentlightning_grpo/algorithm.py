"""GRPO: group-relative policy optimization (Shao et al. 2024, DeepSeekMath, section 4), and its kin by preset."""

from __future__ import annotations

from typing import Any

from agentlightning.algorithm import Run
from agentlightning.credit import Broadcast
from agentlightning.errors import ConfigError
from agentlightning.policies import Policies
from agentlightning.policy_gradient import PolicyGradient
from agentlightning.records import Task
from agentlightning.training_rows import Group
from agentlightning_grpo.config import GRPOConfig
from agentlightning_grpo.curriculum import Curriculum
from agentlightning_grpo.presets import resolve_preset


class GRPO(PolicyGradient):
    """Runs each task several times, compares the rollouts of a task with one another, and makes the tokens of the
    better ones likelier: maximizes the clipped ratio of each token times its rollout's advantage over its group.

    The preset says how exactly: advantage, ratio, clipping, KL, and over what the loss is a mean.
    """

    Config = GRPOConfig
    config: GRPOConfig

    def __init__(self, config: GRPOConfig) -> None:
        super().__init__(config)
        preset = resolve_preset(config.preset, config.loss, config.advantage, at="algorithm.")
        self.loss, self.advantage = preset.loss, preset.advantage
        self.credits = self.load_credits()
        if config.advantage and not any(isinstance(credit, Broadcast) for credit in self.credits.values()):
            raise ConfigError("algorithm.advantage: only the credit broadcast has it: give options in algorithm.credit")
        if config.group_size < 2:
            raise ConfigError("algorithm.group_size: expected at least 2, got 1: a group compares rollouts")

    async def begin(self, run: Run, policies: Policies) -> None:
        remembered = run.restored.state if run.restored is not None else {}
        self.curriculum = Curriculum(run.tasks, self.config.replay, self.config.rest, remembered)

    def tasks(self, run: Run, places: range) -> list[Task]:
        return self.curriculum.choose(super().tasks(run, places))

    async def collect(self, run: Run, step: int) -> list[Group]:
        groups = await super().collect(run, step)
        self.curriculum.observe(groups)
        return groups

    def state(self) -> dict[str, Any]:
        return self.curriculum.state()
