"""The loop of every algorithm that trains weights, written once: an algorithm is its credit and its loss."""

from __future__ import annotations

import functools
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec
import numpy as np

from agentlightning.advantages import AdvantageConfig
from agentlightning.algorithm import Algorithm, Run
from agentlightning.backend import Backend
from agentlightning.causes import explain_groups
from agentlightning.config import decode_section, merged
from agentlightning.credit import BranchPoint, Credit, CreditChoice, give_credit, load_credit, name_of
from agentlightning.errors import AlgorithmError, BudgetError, ConfigError
from agentlightning.loss import LossConfig
from agentlightning.plugins import plugins
from agentlightning.policies import Policies, prefixed
from agentlightning.policy_gradient_config import PolicyGradientConfig as PolicyGradientConfig
from agentlightning.policy_gradient_config import check_informative_groups, check_policies
from agentlightning.records import Task
from agentlightning.training_rows import Group, RolloutRows, TrainingRow
from agentlightning.validation import Validation, refuse_what_has_no_effect

TAKEN = "agentlightning.taken"
"""Where a checkpoint keeps how many tasks were taken, beside the state of the algorithm."""

POLICY = "policy"
"""The name of a policy that is the only one."""

MOST_TASKS = 4
"""How many times ``batch_tasks`` a step takes at most, where the config does not say."""


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
        check_informative_groups(self.config)
        check_policies(self.config)
        self._taken = 0
        self.backend: type[Backend] = plugins().find("backends", self.config.backend)
        names = [field.name for field in msgspec.structs.fields(self.backend.Config)]
        if not all(hasattr(self.config, name) for name in names):
            raise ConfigError(
                f"algorithm: this config lacks the fields of the backend {self.config.backend}: make it by "
                f"{type(self).__name__}.from_section({{…}})"
            )
        self.backend_config = self.backend.Config(**{name: getattr(self.config, name) for name in names})
        self._backend_configs()
        self.credits = self.load_credits()

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
        async with Policies(self.backends(run), run, temperature=config.temperature, agents=self.agents) as policies:
            await self.begin(run, policies)
            await policies.publish()
            await self.check(run)
            await policies.evaluate(config.evaluate, step=0)
            await validation.begin(policies)

            step = policies.completed_steps
            while step < config.steps and not validation.stops:
                step += 1
                started = time.perf_counter()
                try:
                    groups = await self.collect(run, step)
                    await self.explore(run, groups, step)
                except BudgetError as error:
                    step -= 1
                    run.stopped(step=step, reason=str(error))
                    break
                collected = time.perf_counter()
                numbers = give_credit(self.assign_credit, groups, name=self.credit_name, step=step)
                rows = self.select(groups, step)
                metrics = numbers | await policies.update(
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
        """What gives credit, for errors: the plugins' names, or the algorithm's own where it does so itself."""
        if self._credits_itself:
            return type(self).__name__
        return ", ".join(dict.fromkeys(name_of(choice) for choice in self._credit_choices.values()))

    def load_credits(self) -> dict[str, Credit]:
        """The credit of each policy by its name. Raises `ConfigError`."""
        own = [name for name, one in self.config.policies.items() if one.credit is not None]
        if self._credits_itself and (self.config.credit is not None or own):
            raise ConfigError(f"algorithm.credit: {type(self).__name__} gives credit in its own way: leave it out")
        return {
            name: load_credit(
                choice,
                advantage=self.advantage,
                at=f"algorithm.policies.{name}.credit" if name in own else "algorithm.credit",
            )
            for name, choice in self._credit_choices.items()
        }

    @property
    def _credit_choices(self) -> dict[str, CreditChoice]:
        common = "broadcast" if self.config.credit is None else self.config.credit
        if not self.config.policies:
            return {POLICY: common}
        return {name: common if one.credit is None else one.credit for name, one in self.config.policies.items()}

    @property
    def _credits_itself(self) -> bool:
        return type(self).assign_credit is not PolicyGradient.assign_credit

    def backends(self, run: Run) -> list[Backend]:
        """The policies to train: those that the config names, else one, ``policy``, for all agents that the run
        trains. `agents` says which agents each is for. Of several, each has draws of its own.

        Raises `ConfigError` where both the config's ``train`` and its policies say which agents are trained.
        """
        if self.config.policies and list(run.train) != ["*"]:
            raise ConfigError("train: algorithm.policies says which agents are trained, by which policy; leave it out")
        updates = self.config.steps * self.config.epochs * self.config.mini_batches
        configs = self._backend_configs()
        return [
            self.backend(
                config,
                name=name,
                seed=run.seed if len(configs) == 1 else zlib.crc32(f"{run.seed}/{name}".encode()),
                max_updates=updates,
                phase=run.phase,
                directory=run.directory,
            )
            for name, config in configs.items()
        ]

    @property
    def agents(self) -> dict[str, tuple[str, ...]]:
        """Name patterns of the agents that each policy is for, where its backend does not say so itself."""
        return {name: tuple(one.agents) for name, one in self.config.policies.items()}

    def _backend_configs(self) -> dict[str, Any]:
        """The config of each policy's backend by its name: what the section says, and over it what is its own.

        Raises `ConfigError`."""
        if not self.config.policies:
            return {POLICY: self.backend_config}
        common = msgspec.to_builtins(self.backend_config)
        found = {}
        for name, one in self.config.policies.items():
            at = f"algorithm.policies.{name}.backend"
            found[name] = decode_section(merged(common, one.backend), self.backend.Config, at=at)
        return found

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
        no policy wrote a token: a fault that more steps would not mend; and `BudgetError` where nothing was run."""
        config, groups, informative, count = self.config, [], 0, self.config.batch_tasks
        wanted, left = config.informative_groups, config.max_tasks or MOST_TASKS * config.batch_tasks
        while count:
            places = range(self._taken, self._taken + count)
            self._taken, left = places.stop, left - count
            collection = run.collect(self.tasks(run, places), group_size=config.group_size, step=step)
            try:
                async with aclosing(collection) as found:
                    async for group in found:
                        groups.append(group)
                        informative += self.informs(group)
                        if 0 < wanted <= informative:
                            break
            except BudgetError:
                if not groups:
                    raise
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

    async def explore(self, run: Run, groups: Sequence[Group], step: int) -> None:
        """Runs what the credits need to know beyond the groups (`agentlightning.credit.Credit.explore`)."""
        if self._credits_itself:
            return

        async def branch(points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
            return await run.branch(points, count=count, step=step)

        for name, credit in self.credits.items():
            seen = self._of_policy(name, groups)
            await credit.explore(seen, branch)
            for group, of_policy in zip(groups, seen, strict=True):
                group.rollouts += of_policy.rollouts[len(group.rollouts) :]

    def assign_credit(self, groups: Sequence[Group]) -> Mapping[str, float] | None:
        """Gives each transition its advantage (`agentlightning.credit.Credit.assign`): those of each policy by its own
        credit, which sees no others."""
        numbers: dict[str, float] = {}
        for name, credit in self.credits.items():
            of_policy = credit.assign(self._of_policy(name, groups)) or {}
            numbers |= {prefixed(key, name, self.credits): number for key, number in of_policy.items()}
        return numbers

    def _of_policy(self, name: str, groups: Sequence[Group]) -> Sequence[Group]:
        if len(self.credits) == 1:
            return groups
        return [group.with_rows(lambda row: row.policy == name) for group in groups]

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
        **_step_reward_share(members),
        "sequence_breaks": sum(member.prefix_breaks for member in members),
    }


def _step_reward_share(members: Sequence[RolloutRows]) -> dict[str, float]:
    """``step_reward_share``, where there are step rewards: how much of all that was given, by absolute value, they
    are."""
    parts = [part for member in members for part in member.rollout.rewards]
    sizes = [(part.step, abs(part.weight * (part.value or 0.0))) for part in parts]
    of_steps = sum(size for step, size in sizes if step)
    return {"step_reward_share": of_steps / sum(size for _, size in sizes)} if of_steps else {}


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
            default = field.default if factory is msgspec.NODEFAULT else msgspec.field(default_factory=factory)
            fields.append((field.name, field.type, default))
    config = algorithm.Config
    return msgspec.defstruct(
        config.__name__, fields, bases=(config,), kw_only=True, forbid_unknown_fields=True, module=config.__module__
    )
