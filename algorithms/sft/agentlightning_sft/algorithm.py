"""Fine-tuning on the agent's own best rollouts (expert iteration, Anthony et al. 2017; RAFT, Dong et al. 2023), or on
demonstrations."""

from __future__ import annotations

import asyncio
import math

from agentlightning.algorithm import Algorithm, Run
from agentlightning.causes import explain_groups
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import TrainingRow
from agentlightning_gateway.chat import Chat
from agentlightning_policy.training import Training
from agentlightning_sft.config import SFTConfig
from agentlightning_sft.cross_entropy import learn
from agentlightning_sft.demonstrations import load_demonstrations, steps_of
from agentlightning_sft.selection import best_rows


class SFT(Algorithm):
    """Runs each task several times, keeps the best rollouts that are good enough, and learns to write them again; or
    learns to write what demonstrations show.

    Raises `ConfigError` for a number that makes no sense, `DataError` for demonstrations that cannot be read,
    `AlgorithmError` where training cannot go on.
    """

    Config = SFTConfig

    def __init__(self, config: SFTConfig) -> None:
        super().__init__(config)
        if not 1 <= config.keep <= config.group_size:
            raise ConfigError(f"algorithm.keep: expected 1 to group_size ({config.group_size}), got {config.keep}")

    async def run(self, run: Run) -> None:
        config: SFTConfig = self.config
        training = await Training.begin(config, run)
        shown = await asyncio.to_thread(_demonstrations, config, training)
        best = -math.inf

        async with training.engine() as engine:
            await training.publish(engine)
            if not shown:
                await run.check()
            await training.evaluate(engine, step=0)

            for step in range(training.done + 1, config.steps + 1):
                metrics: dict[str, float] = {}
                if shown:
                    sequences = steps_of(shown, config.batch_tasks, step, run.seed)
                else:
                    sequences, metrics = await self._collect(run, step)
                    best = max(best, metrics["reward_max"])
                if sequences:
                    metrics |= await asyncio.to_thread(learn, training, sequences, step)
                    await training.publish(engine)
                run.log({**metrics, "sequences": len(sequences)}, step=step)
                run.progress(step=step, steps=config.steps)
                await training.after_step(engine, step)

            if training.policy.version == 0:
                raise AlgorithmError(
                    f"in {config.steps} steps no rollout reached a reward of {config.threshold}, the best has "
                    f"{best:g}: lower algorithm.threshold, raise group_size, or begin with demonstrations"
                )
            await training.evaluate(engine, step=config.steps)
        await training.save()

    async def _collect(self, run: Run, step: int) -> tuple[list[TrainingRow], dict[str, float]]:
        """The rollouts of a step worth learning from, and the numbers of the collection."""
        config: SFTConfig = self.config
        tasks = run.batches(config.batch_tasks)(step)
        groups = [group async for group in run.collect(tasks, group_size=config.group_size, step=step)]
        if not any(group.rows for group in groups):
            raise AlgorithmError(f"step {step}: there is nothing to learn from: {explain_groups(groups)}")
        rewards = [float(member.rollout.total_reward or 0.0) for group in groups for member in group.rollouts]
        return best_rows(groups, keep=config.keep, threshold=config.threshold), {
            "reward": sum(rewards) / max(len(rewards), 1),
            "reward_max": max(rewards),
            "rollouts_left_out": sum(len(group.excluded) for group in groups),
        }


def _demonstrations(config: SFTConfig, training: Training) -> list[TrainingRow]:
    if config.demonstrations is None:
        return []
    return load_demonstrations(config.demonstrations, Chat(training.policy.tokenizer, ()))
