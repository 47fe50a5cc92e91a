"""Validation: which of a run's weights are the best, and when more steps make them no better."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agentlightning.algorithm import Run
from agentlightning.checkpoints import remove_checkpoints, write_checkpoint
from agentlightning.config import NonNegativeInt, PositiveInt, refuse_without_effect
from agentlightning.errors import AlgorithmError, BudgetError, ConfigError
from agentlightning.policies import Policies
from agentlightning.records import Task

logger = logging.getLogger(__name__)

STATE = "agentlightning.validation"
"""Where a checkpoint keeps what `Validation.state` gives, beside the state of the algorithm."""
MIN_TRAINING_TASKS = 2


class ValidateConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How a run finds its best weights, which are what it ends with, and when it stops.

    ``tasks`` of the training tasks, drawn by the run's seed, are set apart and never trained on. Before the first step,
    every ``every`` steps and after the last (0: never) each is run ``samples`` times at the training temperature. The
    weights of the highest mean outcome are the best; of several, the earliest. After ``patience`` validations in a row
    without a better one training stops (0: never before the last step).

    These are no held-out tasks: the best of many noisy numbers is too high, and so would be the result that is reported
    on the tasks that the weights were chosen by.
    """

    every: NonNegativeInt = 0
    tasks: PositiveInt = 64
    samples: PositiveInt = 1
    patience: NonNegativeInt = 0


class Best(msgspec.Struct):
    """The best weights so far: after which step, their mean outcome, and the folder that keeps them."""

    step: int
    mean: float
    folder: str


class Validation:
    """The validations of one run. Without any (``every`` is 0) it does nothing.

    A folder of weights that were once the best is removed when neither the run nor its last checkpoint needs it. Raises
    `ConfigError` where too few tasks are left to train on, and `AlgorithmError` where a run goes on whose best weights
    are gone.
    """

    def __init__(self, config: ValidateConfig, run: Run) -> None:
        self.best: Best | None = None
        self.misses = 0
        """How many validations in a row were no better than the best."""
        self._config = config
        self._run = run
        self._in_checkpoint: Best | None = None
        self._tasks = _set_apart(run, config.tasks) if config.every else []
        if config.every and run.restored is not None:
            self._take_back(run.restored.state)

    @property
    def stops(self) -> bool:
        """Whether enough validations in a row were no better."""
        return 0 < self._config.patience <= self.misses

    async def begin(self, policies: Policies) -> None:
        """Looks at the weights that the run begins with; one that goes on has done so."""
        if self._run.restored is None:
            await self.validate(policies, 0)

    async def validate(self, policies: Policies, step: int, *, last: bool = False) -> None:
        """Looks whether the weights after ``step`` are the best so far, where it is time to."""
        if not self._config.every or (step % self._config.every and not last):
            return
        try:
            mean = await policies.validate(self._tasks, step=step, samples=self._config.samples)
        except BudgetError as error:
            logger.warning("step %d is not validated: %s", step, error)
            return
        if mean is not None:
            self._run.log({"validation": mean}, step=step)
        if mean is None or (self.best is not None and mean <= self.best.mean):
            self.misses += 1
            return
        self._run.phase("keeping the best weights")
        folder = await asyncio.to_thread(write_checkpoint, self._run.directory, f"best-{step}", policies.write)
        self.best, self.misses = Best(step=step, mean=mean, folder=str(folder)), 0
        await self._remove_unneeded()

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold of it."""
        if not self._config.every:
            return {}
        return {STATE: {"best": msgspec.to_builtins(self.best), "misses": self.misses}}

    async def checkpointed(self) -> None:
        """A checkpoint with the present `state` was made: nobody goes back behind it."""
        self._in_checkpoint = self.best
        await self._remove_unneeded()

    async def conclude(self, policies: Policies, step: int, *, steps: int) -> None:
        """After the last step: publishes the best weights where those of ``step`` are others, and says which they
        are."""
        if not self._config.every:
            return
        better = f"better than that of step {self.best.step}" if self.best is not None else "one that could be scored"
        if self.stops and step < steps:
            self._run.stopped(step=step, reason=f"of {self.misses} validations in a row none was {better}")
        if self.best is None:
            logger.warning("no validation could be scored: the run ends with the weights of its last step")
            return
        self._run.result("best step", str(self.best.step))
        if self.best.step != step:
            self._run.phase("taking back the best weights")
            await policies.restore(Path(self.best.folder))
            await policies.publish()

    def _take_back(self, state: Mapping[str, Any]) -> None:
        known = state[STATE]
        self.misses = known["misses"]
        self.best = self._in_checkpoint = msgspec.convert(known["best"], Best | None)
        if self.best is not None and not Path(self.best.folder).is_dir():
            raise AlgorithmError(
                f"the best weights, of step {self.best.step}, should lie in {self.best.folder}, and do not; put them "
                "back, or start a new run without --resume"
            )

    async def _remove_unneeded(self) -> None:
        if self._config.every:
            needed = [Path(best.folder).name for best in (self.best, self._in_checkpoint) if best is not None]
            await asyncio.to_thread(remove_checkpoints, self._run.directory, "best", but=needed)


def refuse_what_has_no_effect(config: ValidateConfig) -> None:
    """Raises `ConfigError` for an option of a validation that is never made."""
    if config.every:
        return
    fields = msgspec.structs.fields(ValidateConfig)
    changed = [field.name for field in fields if getattr(config, field.name) != field.default]
    refuse_without_effect(changed, dict.fromkeys(changed, "every is not 0"), at="algorithm.validate")


def _set_apart(run: Run, count: int) -> list[Task]:
    left = len(run.tasks) - count
    if left < MIN_TRAINING_TASKS:
        raise ConfigError(
            f"algorithm.validate.tasks: {count} of {len(run.tasks)} training tasks set apart leave {max(left, 0)} to "
            f"train on, and it takes {MIN_TRAINING_TASKS}: set fewer apart, or give more tasks"
        )
    return run.set_apart(count)
