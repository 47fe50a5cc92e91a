"""Where demonstrations come from: rollouts of training tasks, better from batch to batch; files; what was recorded."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from agentlightning.algorithm import Run
from agentlightning.causes import explain_rollouts
from agentlightning.errors import AlgorithmError
from agentlightning.recorded import FromLive
from agentlightning.records import AnyResource, Policy, Rollout, Task
from agentlightning_prompt.demonstrations import Demonstration, Reader
from agentlightning_prompt.few_shot_config import FewShotConfig
from agentlightning_prompt.pool import Pool, Shown, draw, messages_of
from agentlightning_prompt.roles import Observed, Role, find_roles

logger = logging.getLogger(__name__)

DEFAULT_ROLLOUTS = 128
SHOWN_AT_ONCE = 4
"""Demonstrations of those found so far that later batches run with."""
LOOKED_AT = 2
"""Rollouts that show which roles there are, where no others are asked for."""
LEAST_TEMPERATURE = 0.7
WARMER = 1.2
"""By so much the temperature rises after a batch without one demonstration, up to twice."""


class Bootstrap:
    """Finds demonstrations within ``rollouts`` rollouts of training tasks.

    The first batch runs the agent as it is. Those after it run with the best that were found so far: an agent that is
    seldom right by itself is right more often when it sees how that looks (the bootstrap of DSPy, Khattab et al. 2023,
    section 3.3, from one round to the next). It ends early when there are enough that are as good as the best.
    """

    def __init__(self, run: Run, config: FewShotConfig, policy: Policy | None, never_shown: Sequence[Task]) -> None:
        self.step = 0
        """How many batches were run."""
        self.roles: list[Role] = []
        self.pool = Pool([], threshold=config.threshold)
        self._run = run
        self._config = config
        self._policy = policy
        self._never_shown = [task.input for task in never_shown]
        self._reader = Reader([], max_characters=0)
        self._enough = 2 * max(config.counts)
        self._spent = 0
        self._fruitless = 0

    async def find(self, rollouts: int, *, most: int) -> None:
        """Fills the pool from ``rollouts``, and from up to ``most`` where nothing in these is good. Raises `DataError`
        for a file that cannot be read."""
        config = self._config
        if rollouts == 0:
            await self._batch(LOOKED_AT, samples=1)
        if config.labelled is not None:
            self.pool.add(self._reader.by_hand(config.labelled))
        if config.from_live is not None:
            await self._read_live(config.from_live)
        samples = min(config.bootstrap_samples, max(rollouts, 1))
        while not (self.roles and self.pool.is_full(self._enough)):
            left = (most if not self.found_any and rollouts > 0 else rollouts) - self._spent
            if left < samples:
                break
            await self._batch(min(config.batch_tasks, left // samples), samples=samples)

    @property
    def found_any(self) -> bool:
        """Whether there is anything good to show."""
        return any(self.pool.good(role.name) for role in self.roles)

    def why_nothing(self) -> str:
        """Why nothing good was found, and what to do."""
        seen, best = len(self.pool.outcomes), self.pool.best_outcome
        threshold = self.pool.threshold
        if best is None:
            return (
                f"none of {self._spent} rollouts has an outcome, so none is worth showing: name a `reward`, or call "
                "agl.reward(…) in the agent"
            )
        if threshold is None:
            least = "and none is better than the others"
        else:
            least = f"and algorithm.threshold asks for {threshold:g}"
        left_out = "; ".join(f"{count} × {why}" for why, count in self._reader.left_out.most_common(3))
        return (
            f"nothing to show: of {seen} rollouts the best has the outcome {best:g}, {least}"
            f"{f'. Conversations that could not be shown: {left_out}' if left_out else ''}. Raise "
            "algorithm.bootstrap_rollouts or bootstrap_samples, lower algorithm.threshold, or give a few by hand "
            "(algorithm.labelled)"
        )

    async def _batch(self, count: int, *, samples: int) -> None:
        run, shown = self._run, self._shown()
        self.step += 1
        tasks = run.batches(min(self._config.batch_tasks, len(run.tasks)))(self.step)[:count]
        members: list[Observed] = []
        excluded: list[Rollout] = []
        async for group in run.collect(
            tasks, step=self.step, group_size=samples, resources=self._resources(shown), key=f"bootstrap/{self.step}"
        ):
            members += [(member.rollout, member.spans) for member in group.rollouts]
            excluded += group.excluded
        self._spent += len(members) + len(excluded)
        if not self.roles:
            self._find_roles(members, excluded)
        self.pool.saw(rollout for rollout, _ in members)
        given = messages_of(shown)
        for rollout, spans in members:
            self.pool.add(self._reader.read(rollout, spans, shown=given))
        good = {role.name: len(self.pool.good(role.name)) for role in self.roles}
        self._fruitless = 0 if any(good.values()) else self._fruitless + 1
        outcomes = [rollout.outcome for rollout, _ in members if rollout.outcome is not None]
        metrics = {"bootstrap_rollouts": float(self._spent), "demonstrations": float(sum(good.values()))}
        run.log(metrics | ({"reward": sum(outcomes) / len(outcomes)} if outcomes else {}), step=self.step)

    def _find_roles(self, members: Sequence[Observed], excluded: Sequence[Rollout]) -> None:
        self.roles = [role for role in find_roles(members, agents=self._run.train) if not role.named]
        if not self.roles:
            why = explain_rollouts(excluded) if excluded else "none of its model calls was recorded"
            raise AlgorithmError(f"there is no agent to show demonstrations to: {why}; `agl check` says who acted")
        self._reader = Reader(
            self.roles, max_characters=self._config.max_demonstration_characters, never_shown=self._never_shown
        )
        self._reader.learn_what_is_said_always(members)
        self.pool = Pool([role.name for role in self.roles], threshold=self.pool.threshold)

    async def _read_live(self, which: FromLive) -> None:
        threshold = self._config.threshold
        recorded = await self._run.recorded(which, threshold=threshold)
        self.pool.saw(one.rollout for one in recorded)
        if which.top is not None:  # all of these are good
            self.pool.threshold = min(self.pool.outcomes)
        for one in recorded:
            if one.task.input not in self._never_shown:
                self.pool.add(self._reader.read(one.rollout, one.spans))

    def _shown(self) -> Shown:
        """What the next batch runs with: some of the best so far, in another order each time."""
        rng = np.random.default_rng([self._run.seed, self.step])
        shown: dict[str, tuple[Demonstration, ...]] = {}
        for role in self.roles:
            best = self.pool.promising(role.name)[: 2 * SHOWN_AT_ONCE]
            shown[role.name] = draw(best, SHOWN_AT_ONCE, rng, max_characters=self._config.max_characters)
        return shown

    def _resources(self, shown: Shown) -> list[AnyResource]:
        resources: list[AnyResource] = [
            role.prompt(demonstrations=[one.messages for one in shown[role.name]])
            for role in self.roles
            if shown.get(role.name)
        ]
        if self._policy is not None:
            temperature = self._config.bootstrap_temperature
            if temperature is None:
                temperature = max(LEAST_TEMPERATURE, self._config.temperature)
            resources.append(self._policy.sampled_with(temperature=temperature * WARMER ** min(self._fruitless, 2)))
        return resources
