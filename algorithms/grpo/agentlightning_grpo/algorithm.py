"""GRPO: group-relative policy optimization (Shao et al. 2024, DeepSeekMath, section 4), and its kin by preset."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from agentlightning.algorithm import Algorithm, Run
from agentlightning.causes import explain_groups
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Group
from agentlightning_grpo.config import GRPOConfig
from agentlightning_grpo.curriculum import Curriculum
from agentlightning_grpo.examples import assign, describe
from agentlightning_grpo.presets import choose
from agentlightning_grpo.update import Learner
from agentlightning_policy.training import Training


class GRPO(Algorithm):
    """Runs each task several times, compares the rollouts of a task with one another, and makes the tokens of
    the better ones likelier.

    A run that was cut off goes on from its last checkpoint; rollouts recorded since are used as they are,
    and the update they lead to is the same to the bit. Raises `ConfigError` for a preset or a number that
    makes no sense, `AlgorithmError` where training cannot go on.
    """

    Config = GRPOConfig

    def __init__(self, config: GRPOConfig) -> None:
        super().__init__(config)
        self.preset = choose(config.preset, config.loss, config.advantage, at="algorithm.")
        if config.group_size < 2:
            raise ConfigError("algorithm.group_size: expected at least 2, got 1: a group compares rollouts")

    async def run(self, run: Run) -> None:
        config: GRPOConfig = self.config
        training = await Training.begin(config, run)
        learner = Learner(training, self.preset.loss)
        batch = run.batches(config.batch_tasks)
        known = run.restored.state.get("spread", {}) if run.restored is not None else {}
        curriculum = Curriculum(run.tasks, config.replay, known)

        async with training.engine() as engine:
            await training.publish(engine)
            await run.check()
            await training.evaluate(engine, step=0)

            for step in range(training.done + 1, config.steps + 1):
                started = time.perf_counter()
                tasks = curriculum.choose(batch(step))
                collection = run.collect(tasks, group_size=config.group_size, step=step)
                groups = sorted([group async for group in collection], key=lambda group: (group.task.id, group.id))
                curriculum.observe(groups)
                collected = time.perf_counter()
                _check_trainable(groups, step)
                assign(groups, self.preset.advantage)
                metrics = await asyncio.to_thread(learner.update, groups, step)
                await training.publish(engine)

                seconds = {"seconds_collect": collected - started, "seconds_update": time.perf_counter() - collected}
                run.log({**describe(groups), **metrics, **seconds}, step=step)
                run.progress(step=step, steps=config.steps)
                await training.after_step(engine, step, spread=curriculum.spread)

            await training.evaluate(engine, step=config.steps)
        await training.save()


def _check_trainable(groups: Sequence[Group], step: int) -> None:
    """A step may have nothing to learn from; one without any token of the policy's is a fault that more steps would
    not mend."""
    if not any(group.rows for group in groups):
        raise AlgorithmError(f"step {step}: there is nothing to train on: {explain_groups(groups)}")
