"""The loop of every algorithm that trains weights, written once: an algorithm is its credit and its loss."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from agentlightning.advantages import AdvantageConfig
from agentlightning.algorithm import Algorithm, Run
from agentlightning.backend import Backend
from agentlightning.causes import explain_groups
from agentlightning.config import NonNegativeInt, PositiveInt
from agentlightning.credit import give_credit, load_credit
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.loss import LossConfig
from agentlightning.plugins import plugins
from agentlightning.policies import EvaluateConfig, Policies
from agentlightning.records import Task
from agentlightning.sampler import MAX_TEMPERATURE
from agentlightning.training_rows import Group, TrainingRow
from agentlightning.validation import ValidateConfig, Validation, refuse_what_has_no_effect

TAKEN = "agentlightning.taken"
"""Where a checkpoint keeps how many tasks were taken, beside the state of the algorithm."""

MOST_TASKS = 4
"""How many times ``batch_tasks`` a step takes at most, where the config does not say."""

# At 0 the rollouts of a group are all alike, and above the maximum they are noise.
Temperature = Annotated[float, msgspec.Meta(gt=0, le=MAX_TEMPERATURE)]


class PolicyGradientConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a run that trains weights can be told, whatever the algorithm; the fields of ``backend`` stand beside these.

    A step takes ``batch_tasks`` tasks and runs each ``group_size`` times at ``temperature``, then goes over
    what came of it ``epochs`` times, each time in ``mini_batches`` optimizer steps. ``credit`` names what makes
    advantages of rewards (`agentlightning.credit`).

    Groups whose rollouts all earn the same teach nothing. With ``informative_groups`` a step goes on with other tasks,
    up to ``max_tasks`` (4 · ``batch_tasks`` by default), until it has so many groups of another kind; it cancels what
    then still runs, and learns from those alone (dynamic sampling, Yu et al. 2025, DAPO, section 3.2).

    A checkpoint is made every ``checkpoint_every`` steps and at the
    end (0: never). With ``validate`` the run ends with its best weights, and may stop early.
    """

    backend: str = "torch"
    credit: str | dict[str, Any] | None = None
    steps: PositiveInt = 100
    batch_tasks: PositiveInt = 8
    group_size: PositiveInt = 8
    informative_groups: NonNegativeInt = 0
    max_tasks: PositiveInt | None = None
    temperature: Temperature = 1.0
    epochs: PositiveInt = 1
    mini_batches: PositiveInt = 1
    checkpoint_every: NonNegativeInt = 10
    evaluate: EvaluateConfig = msgspec.field(default_factory=EvaluateConfig)
    validate: ValidateConfig = msgspec.field(default_factory=ValidateConfig)


class PolicyGradient(Algorithm):
    """Runs tasks, gives credit, and makes what earned it likelier, step by step.

    ``loss`` is what the backend minimizes, ``advantage`` what `agentlightning.credit.Broadcast` computes where the
    config says nothing else; a subclass sets either, or overrides `assign_credit`. A run that was cut off goes on from
    its last checkpoint; rollouts recorded since are used as they are, and the update they lead to is the same to the
    bit. Raises `ConfigError` for a number that makes no sense, `AlgorithmError` where training cannot go on.
    """

    Config: ClassVar[type[PolicyGradientConfig]] = PolicyGradientConfig
    backend_defaults: ClassVar[Mapping[str, Any]] = {}
    """Fields of the backend's config whose default is another for this algorithm."""
    loss = LossConfig()
    advantage = AdvantageConfig()

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        refuse_what_has_no_effect(self.config.validate)
        _check_informative_groups(self.config)
        self._taken = 0
        self.backend: type[Backend] = plugins().find("backends", self.config.backend)
        names = [field.name for field in msgspec.structs.fields(self.backend.Config)]
        if not all(hasattr(self.config, name) for name in names):
            raise ConfigError(
                f"algorithm: this config lacks the fields of the backend {self.config.backend}: make it by "
                f"{type(self).__name__}.from_section({{…}})"
            )
        self.backend_config = self.backend.Config(**{name: getattr(self.config, name) for name in names})
        if self._credits_itself and self.config.credit is not None:
            raise ConfigError(f"algorithm.credit: {type(self).__name__} gives credit in its own way: leave it out")
        self.credit = load_credit(self.config.credit or "broadcast", advantage=self.advantage)

    @classmethod
    def config_type(cls, section: Mapping[str, Any]) -> type[msgspec.Struct]:
        """The algorithm's config and that of the backend that ``section`` names, in one."""
        name = section.get("backend", "torch")
        if not isinstance(name, str):
            return cls.Config  # which says what is wrong with it
        return _with_backend(cls, plugins().find("backends", name))

    async def run(self, run: Run) -> None:
        config = self.config
        validation = Validation(config.validate, run)
        self._taken = run.restored.state.get(TAKEN, 0) if run.restored is not None else 0
        async with Policies(self.backends(run), run, temperature=config.temperature) as policies:
            await self.begin(run, policies)
            await policies.publish()
            await self.check(run)
            await policies.evaluate(config.evaluate, step=0)
            await validation.begin(policies)

            step = policies.completed_steps
            while step < config.steps and not validation.stops:
                step += 1
                started = time.perf_counter()
                groups = await self.collect(run, step)
                collected = time.perf_counter()
                give_credit(self.assign_credit, groups, name=self.credit_name, step=step)
                rows = self.select(groups, step)
                metrics = await policies.update(
                    rows, self.loss, step=step, epochs=config.epochs, mini_batches=config.mini_batches
                )
                await policies.publish()

                seconds = {"seconds_collect": collected - started, "seconds_update": time.perf_counter() - collected}
                run.log({**describe(groups, rows), **metrics, **seconds}, step=step)
                run.progress(step=step, steps=config.steps)
                await validation.validate(policies, step, last=step == config.steps)
                last = step == config.steps or validation.stops
                if config.evaluate.every and step % config.evaluate.every == 0 and not last:
                    await policies.evaluate(config.evaluate, step=step)
                if config.checkpoint_every and (last or step % config.checkpoint_every == 0):
                    await policies.checkpoint(step, {**self.state(), **validation.state(), TAKEN: self._taken})
                    await validation.checkpointed()

            self.conclude(policies)
            await validation.conclude(policies, step, steps=config.steps)
            await policies.evaluate(config.evaluate, step=step)
            await policies.save()

    @property
    def credit_name(self) -> str:
        """What gives credit, for errors: the plugin's name, or the algorithm's own where it does so itself."""
        if self._credits_itself:
            return type(self).__name__
        choice = self.config.credit or "broadcast"
        return choice if isinstance(choice, str) else str(choice["name"])

    @property
    def _credits_itself(self) -> bool:
        return type(self).assign_credit is not PolicyGradient.assign_credit

    def backends(self, run: Run) -> list[Backend]:
        """The policies to train: one, ``policy``, for all agents that the run trains. Several have names of their own,
        and each `Policy` that they publish says which agents it is for."""
        updates = self.config.steps * self.config.epochs * self.config.mini_batches
        return [self.backend(self.backend_config, name="policy", seed=run.seed, max_updates=updates, phase=run.phase)]

    async def begin(self, run: Run, policies: Policies) -> None:
        """Called once the policies are loaded; ``run.restored.state`` is what `state` gave at the last checkpoint."""

    async def check(self, run: Run) -> None:
        """Looks at the first rollout before anything is spent."""
        await run.check()

    def tasks(self, run: Run, places: range) -> list[Task]:
        """The tasks at these places, from 0, of the run's order, which goes over all of them again and again."""
        return [run.batches(1)(place + 1)[0] for place in places]

    async def collect(self, run: Run, step: int) -> list[Group]:
        """The groups of a step, in an order that depends on nothing but what they hold. Raises `AlgorithmError` where
        no policy wrote a token: a fault that more steps would not mend."""
        config, groups, informative, count = self.config, [], 0, self.config.batch_tasks
        wanted, left = config.informative_groups, config.max_tasks or MOST_TASKS * config.batch_tasks
        while count:
            places = range(self._taken, self._taken + count)
            self._taken, left = places.stop, left - count
            collection = run.collect(self.tasks(run, places), group_size=config.group_size, step=step)
            async with aclosing(collection) as found:
                async for group in found:
                    groups.append(group)
                    informative += self.informs(group)
                    if 0 < wanted <= informative:
                        break
            # as many more as it takes if they inform as often as those so far
            missing = max(0, wanted - informative)
            count = min(math.ceil(missing * (len(groups) + 1) / (informative + 1)), config.batch_tasks, left)
        if not any(group.rows for group in groups):
            raise AlgorithmError(f"step {step}: there is nothing to train on: {explain_groups(groups)}")
        return sorted(groups, key=lambda group: (group.task.id, group.id))

    def informs(self, group: Group) -> bool:
        """Whether there is something to learn from a group, as far as can be told before credit is given."""
        return len({member.rollout.total_reward for member in group.rollouts}) > 1

    def assign_credit(self, groups: Sequence[Group]) -> None:
        """Gives each transition its advantage (`agentlightning.credit.Credit.assign`)."""
        self.credit.assign(groups)

    def select(self, groups: Sequence[Group], step: int) -> list[list[TrainingRow]]:
        """The rows that are learned from; those of one inner list share a mini-batch."""
        return [group.rows for group in groups if group.has_signal or not self.config.informative_groups]

    def state(self) -> dict[str, Any]:
        """What else a run needs to go on, in plain values."""
        return {}

    def conclude(self, policies: Policies) -> None:
        """Called after the last step, with its weights. Raises `AlgorithmError` where the run came to nothing."""


def describe(groups: Sequence[Group], learned: Sequence[Sequence[TrainingRow]]) -> dict[str, float]:
    """The numbers of a step's rollouts and of the rows learned, for the log.

    ``reward_spread`` is the mean over the groups of the standard deviation within them.
    """
    numbers: dict[str, float] = {
        "sequences": sum(len(rows) for rows in learned),
        "tokens": sum(row.trained_tokens for rows in learned for row in rows),
    }
    if not groups:
        return numbers
    rewards = [[float(one.rollout.total_reward or 0.0) for one in group.rollouts] for group in groups if group.rollouts]
    every = [reward for group in rewards for reward in group]
    members = [member for group in groups for member in group.rollouts]
    return numbers | {
        "reward": float(np.mean(every)) if every else 0.0,
        "reward_std": float(np.std(every)) if every else 0.0,
        "reward_spread": float(np.mean([np.std(group) for group in rewards])) if rewards else 0.0,
        "groups_skipped": sum(not group.has_signal for group in groups),
        "rollouts_left_out": sum(len(group.excluded) for group in groups),
        "rollouts_failed": sum(member.rollout.failure is not None for member in members),
        "sequence_breaks": sum(member.prefix_breaks for member in members),
    }


def _check_informative_groups(config: PolicyGradientConfig) -> None:
    if config.max_tasks is None:
        return
    if not config.informative_groups:
        raise ConfigError("algorithm.max_tasks: has no effect without informative_groups: a step takes batch_tasks")
    least = max(config.batch_tasks, config.informative_groups)
    if config.max_tasks < least:
        raise ConfigError(
            f"algorithm.max_tasks: expected at least batch_tasks and informative_groups ({least}), "
            f"got {config.max_tasks}"
        )


@functools.cache
def _with_backend(algorithm: type[PolicyGradient], backend: type[Backend]) -> type[msgspec.Struct]:
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(backend.Config):
        if field.name in algorithm.backend_defaults:
            fields.append((field.name, field.type, algorithm.backend_defaults[field.name]))
        elif field.required:
            fields.append((field.name, field.type))
        else:
            factory = field.default_factory
            fields.append(
                (field.name, field.type, field.default)
                if factory is msgspec.NODEFAULT
                else (field.name, field.type, msgspec.field(default_factory=factory))
            )
    config = algorithm.Config
    return msgspec.defstruct(
        config.__name__, fields, bases=(config,), kw_only=True, forbid_unknown_fields=True, module=config.__module__
    )
