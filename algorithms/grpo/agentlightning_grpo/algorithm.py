"""GRPO: group-relative policy optimization (Shao et al. 2024, DeepSeekMath, section 4), and its kin by preset."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from agentlightning.algorithm import Algorithm, Run
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Group, Policy
from agentlightning_grpo.config import GRPOConfig
from agentlightning_grpo.examples import ScoredGroup, describe, score
from agentlightning_grpo.presets import choose
from agentlightning_grpo.update import Learner
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel
from agentlightning_policy.optimize import Optimizer


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
        _check(config)

    async def run(self, run: Run) -> None:
        config = self.config
        policy = await asyncio.to_thread(_load, config, run.seed)
        learner = Learner(
            policy,
            Optimizer(policy, config),
            self.preset.loss,
            epochs=config.epochs,
            mini_batches=config.mini_batches,
            max_tokens=config.max_tokens_per_micro_batch,
            seed=run.seed,
        )
        done = await _restore(learner, run)
        batch = run.batches(config.batch_tasks)

        async with Engine(policy, config.engine) as engine:
            await run.publish(self._resource(engine))
            await self._evaluate(run, engine, "before")

            for step in range(done + 1, config.steps + 1):
                started = time.perf_counter()
                groups = [group async for group in run.collect(batch(step), group_size=config.group_size, step=step)]
                collected = time.perf_counter()
                scored = score(groups, self.preset.advantage)
                _check_trainable(groups, scored, step)
                metrics = await asyncio.to_thread(learner.update, scored, step)
                await run.publish(self._resource(engine))

                seconds = {"seconds_collect": collected - started, "seconds_update": time.perf_counter() - collected}
                run.log({**describe(groups, scored), **metrics, **seconds}, step=step)
                run.progress(step=step, steps=config.steps)
                if config.checkpoint_every and step % config.checkpoint_every == 0 and step < config.steps:
                    await run.checkpoint(step, {"policy_version": policy.version}, learner.optimizer.save)
                if config.evaluate.every and step % config.evaluate.every == 0 and step < config.steps:
                    await self._evaluate(run, engine, f"step-{step}")

            if config.checkpoint_every and done < config.steps:
                await run.checkpoint(config.steps, {"policy_version": policy.version}, learner.optimizer.save)
            await self._evaluate(run, engine, "after")

        folder = await asyncio.to_thread(policy.save, run.directory / "model")
        run.result("model", str(folder))

    def _resource(self, engine: Engine) -> Policy:
        """The policy as training needs it: sampled from the whole distribution, whatever the agent asks for."""
        return engine.resource("policy", temperature=self.config.temperature, top_p=1.0)

    async def _evaluate(self, run: Run, engine: Engine, stage: str) -> None:
        if not run.held_out:
            return
        resource = self._resource(engine)
        await run.evaluate(stage, variant="sampled", resources=[resource], samples=self.config.evaluate.samples)
        if self.config.evaluate.greedy:
            await run.evaluate(stage, variant="greedy", resources=[resource.sampled_with(temperature=0.0)])


def _load(config: GRPOConfig, seed: int) -> PolicyModel:
    torch.manual_seed(seed)
    return PolicyModel.load(config.model)


async def _restore(learner: Learner, run: Run) -> int:
    """The step that is done already."""
    if run.restored is None:
        return 0
    if run.restored.path is None:
        raise AlgorithmError(f"the checkpoint of step {run.restored.step} has no files: it was not made by grpo")
    await asyncio.to_thread(learner.optimizer.load, Path(run.restored.path))
    return run.restored.step


def _check_trainable(groups: Sequence[Group], scored: Sequence[ScoredGroup], step: int) -> None:
    """A step may have nothing to learn from; one without any rollout, or without any token of the policy's, is
    a fault that more steps would not mend."""
    left_out = [rollout for group in groups for rollout in group.left_out]
    if not any(group.rollouts for group in groups):
        reasons = Counter(rollout.failure.type if rollout.failure else "not scored" for rollout in left_out)
        counted = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        raise AlgorithmError(f"step {step}: none of {len(left_out)} rollouts can be trained on: {counted}")
    if not any(group.examples for group in scored):
        raise AlgorithmError(
            f"step {step}: no call of the agents was answered by the policy: does `train` name the agent, "
            "and does it call its model through the openai client?"
        )


def _check(config: GRPOConfig) -> None:
    least = {
        "steps": 1,
        "batch_tasks": 1,
        "group_size": 2,
        "epochs": 1,
        "mini_batches": 1,
        "max_tokens_per_micro_batch": 1,
        "checkpoint_every": 0,
    }
    for name, smallest in least.items():
        if getattr(config, name) < smallest:
            raise ConfigError(f"algorithm.{name}: expected at least {smallest}, got {getattr(config, name)}")
    if config.temperature <= 0:
        raise ConfigError(
            f"algorithm.temperature: expected more than 0, got {config.temperature}: greedy rollouts are all alike"
        )
