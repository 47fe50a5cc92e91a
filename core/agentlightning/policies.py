"""The policies that a run trains, by name: each is held, served and changed by a backend of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import msgspec

from agentlightning.algorithm import Run
from agentlightning.backend import Backend
from agentlightning.config import NonNegativeInt, PositiveInt
from agentlightning.errors import AlgorithmError
from agentlightning.loss import LossConfig
from agentlightning.records import Policy, Task
from agentlightning.training_rows import TrainingRow


class EvaluateConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How the held-out tasks are run before and after training, and every ``every`` steps (0: never between).

    Each task is run ``samples`` times at the training temperature (variant ``sampled``) and, with ``greedy``,
    once at temperature 0 (variant ``greedy``).
    """

    samples: PositiveInt = 1
    greedy: bool = True
    every: NonNegativeInt = 0


def prefixed(key: str, policy: str, policies: Collection[str]) -> str:
    """The name of a policy's number in the log: with the policy's own before it where there are several."""
    return f"{policy}/{key}" if len(policies) > 1 else key


class Policies:
    """Does to all policies of a run what a training loop does to one. A block of ``async with`` serves them.

    ``agents`` are name patterns of the agents that each is for, by its name, where its backend does not say so.
    ``completed_steps`` is how many steps were done when the run went on. Raises `AlgorithmError` where a checkpoint
    holds no weights.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        run: Run,
        *,
        temperature: float,
        agents: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    ) -> None:
        self.backends = {backend.name: backend for backend in backends}
        self.completed_steps = run.restored.step if run.restored is not None else 0
        self._run = run
        self._temperature = temperature
        self._agents = agents
        self._published: list[Policy] = []
        self._stack = AsyncExitStack()

    @property
    def version(self) -> int:
        """The greatest version published: 0 where no weights have changed yet."""
        return max(policy.version for policy in self._published)

    async def __aenter__(self) -> Policies:
        self._run.phase("loading the model")
        restored = self._run.restored
        if restored is not None and restored.path is None:
            raise AlgorithmError(f"the checkpoint of step {restored.step} holds no weights: start a new run")
        try:
            for backend in self.backends.values():
                self._stack.push_async_callback(backend.aclose)
                await backend.start()
            if restored is not None and restored.path is not None:
                await self.restore(Path(restored.path))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def publish(self) -> None:
        """Makes the present weights those that next rollouts use."""
        self._published = []
        for name, backend in self.backends.items():
            policy = (await backend.publish()).sampled_with(temperature=self._temperature)
            if name in self._agents:
                policy = msgspec.structs.replace(policy, agents=self._agents[name])
            self._published.append(policy)
        for policy in self._published:
            await self._run.publish(policy)

    async def evaluate(self, config: EvaluateConfig, *, step: int) -> None:
        """Runs the held-out tasks, where there are any, sampled and greedy, after ``step`` training steps."""
        if not self._run.held_out or step < self.completed_steps:  # or it was evaluated before the run was cut off
            return
        sampled = list(self._published)
        await self._run.evaluate(step=step, variant="sampled", resources=sampled, samples=config.samples)
        if config.greedy:
            greedy = [policy.sampled_with(temperature=0.0) for policy in sampled]
            await self._run.evaluate(step=step, variant="greedy", resources=greedy)

    async def validate(self, tasks: Sequence[Task], *, step: int, samples: int) -> float | None:
        """The mean outcome of ``tasks`` under the published weights, at the training temperature; None where none could
        be scored."""
        evaluation = await self._run.evaluate(
            step=step, tasks=tasks, resources=list(self._published), samples=samples, purpose="validate"
        )
        return evaluation.mean

    async def update(
        self, groups: Sequence[Sequence[TrainingRow]], loss: LossConfig, *, step: int, epochs: int, mini_batches: int
    ) -> dict[str, float]:
        """Changes each policy by the rows that it wrote; the metrics bear its name where there are several."""
        self._run.phase("update")
        metrics: dict[str, float] = {}
        for name, backend in self.backends.items():
            own = [[row for row in rows if row.policy == name] for rows in groups]
            numbers = await backend.update(own, loss, step=step, epochs=epochs, mini_batches=mini_batches)
            metrics |= {prefixed(key, name, self.backends): number for key, number in numbers.items()}
        return metrics

    async def checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Makes a point to go on from: a folder for each policy, and ``state``, plain values of the algorithm's."""
        await self._run.checkpoint(step, state, self.write)

    def write(self, folder: Path) -> None:
        """Writes all that `restore` needs: a folder for each policy. Not in the event loop."""
        for name, backend in self.backends.items():
            (folder / name).mkdir()
            backend.save(folder / name)

    async def restore(self, folder: Path) -> None:
        """Takes back what `write` wrote."""
        for name, backend in self.backends.items():
            await asyncio.to_thread(backend.restore, folder / name)

    async def save(self) -> None:
        """Writes the trained models: the run's result ``model``, or ``model/<name>`` where there are several."""
        self._run.phase("saving the model")
        for name, backend in self.backends.items():
            result = "model" if len(self.backends) == 1 else f"model/{name}"
            folder = self._run.directory / result
            await asyncio.to_thread(backend.save_model, folder)
            self._run.result(result, str(folder))
