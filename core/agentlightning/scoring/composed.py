"""Reward plugins composed: by name and weight, every component apart, every failure typed.

A reward is a stranger's code. Whatever it does (raise anything, never return, end its process, give a number of 400
digits) is a ``reward_error`` of that rollout.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.errors import RewardError
from agentlightning.plugins import Plugins
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning.scoring.component import Call, Component, RewardLike, Scored, make_component
from agentlightning.scoring.processes import RewardProcesses
from agentlightning.threads import call_in_thread, needs_main_thread

logger = logging.getLogger(__name__)


class Scoring:
    """The rewards of a run. Each is a name, ``module:function``, a function, or any of these with a weight and
    options (`agentlightning.config.RewardConfig`).

    A reward is called as ``(rollout, task)`` for each rollout, and gives a number, a dict of numbers (components
    ``name.key``), a `Reward` or a list of them (with a reason, or with the span of the step that it is for), or None:
    cannot be scored. One whose first parameter is called ``rollouts`` is a group reward: it is called once, as
    ``(rollouts, task)``, with the rollouts of a task that are compared, and gives a list with one of those values for
    each, in their order. Either is given ``spans`` too when it has a parameter of that name: the rollout's, or a list
    with those of each.

    A synchronous one runs in a thread; in a process of its own where its config says so, or where it turns out to need
    a main thread. A class is made with its ``Config``, where it has one, and called the same way. Raises `PluginError`
    and `ConfigError` before anything runs.
    """

    def __init__(self, rewards: Sequence[RewardLike], plugins: Plugins) -> None:
        self._components: list[Component] = []
        seen: Counter[str] = Counter()
        for index, reward in enumerate(rewards):
            at = f"reward[{index}]" if len(rewards) > 1 else "reward"
            component = make_component(reward, plugins, at)
            seen[component.name] += 1
            if seen[component.name] > 1:
                component.name = f"{component.name}-{seen[component.name]}"
            self._components.append(component)
        self._processes: dict[str, RewardProcesses] = {}

    @property
    def rewards(self) -> list[str]:
        """The names of the rewards that see a rollout by itself."""
        return [component.name for component in self._components if not component.of_group]

    @property
    def group_rewards(self) -> list[str]:
        """The names of the rewards that see a task's rollouts together."""
        return [component.name for component in self._components if component.of_group]

    async def score(self, rollout: Rollout, task: Task, spans: Sequence[Span], *, seconds: float = 60.0) -> Scored:
        """What the rollout is worth by itself, and a ``reward_error`` for each reward that raised, took longer than
        ``seconds``, or gave what is no reward; after them those that are recorded in its spans, of what the agent gave.

        The failed ones have the value None: never zero in its place.
        """
        call = Call(rollouts=[rollout], task=task, spans=[list(spans)])
        (scored,) = await self._score_all(call, seconds, of_group=False)
        recorded = [span.failure for span in spans if span.kind == "reward" and span.failure is not None]
        return Scored(scored.rewards, [*scored.failures, *recorded])

    async def score_group(
        self, rollouts: Sequence[Rollout], task: Task, spans: Sequence[Sequence[Span]], *, seconds: float = 60.0
    ) -> list[Scored]:
        """What the group rewards give each of a task's rollouts, which all have ended; bounded and typed as by `score`.

        ``spans[i]`` are those of ``rollouts[i]``.
        """
        call = Call(rollouts=list(rollouts), task=task, spans=[list(of_one) for of_one in spans])
        return await self._score_all(call, seconds, of_group=True)

    def close(self) -> None:
        """Ends the processes that rewards run in; they begin again when they are needed."""
        for processes in self._processes.values():
            processes.close()

    async def _score_all(self, call: Call, seconds: float, *, of_group: bool) -> list[Scored]:
        components = [component for component in self._components if component.of_group is of_group]
        given = await asyncio.gather(*(self._score(component, call, seconds) for component in components))
        whole = [Scored([], []) for _ in call.rollouts]
        for component, of_component in zip(components, given, strict=True):
            for scored, part, spans in zip(whole, of_component, call.spans, strict=True):
                scored.add(component.checked(part, spans))
        return whole

    async def _score(self, component: Component, call: Call, seconds: float) -> list[Scored]:
        if component.in_process:
            return await self._score_in_process(component, call, seconds)
        outcome = await run_bounded(_call(component, call), seconds=seconds)
        if outcome.error is None:
            return component.scored(outcome.value, len(call.rollouts))
        error = outcome.error
        if isinstance(error, TimeLimitError):
            error = RewardError(f"took longer than runner.reward_timeout = {seconds:g} s")
        elif needs_main_thread(error):
            if component.spec is not None:
                logger.info(
                    "reward %s needs a main thread: it runs in a process of its own from now on", component.name
                )
                component.in_process = True
                return await self._score_in_process(component, call, seconds)
            error = RewardError(f"{NEEDS_A_NAME}: {error}")
        return [component.unscored(error) for _ in call.rollouts]

    async def _score_in_process(self, component: Component, call: Call, seconds: float) -> list[Scored]:
        if component.name not in self._processes:
            self._processes[component.name] = RewardProcesses(component)
        try:
            return await call_in_thread(self._processes[component.name].score, call, seconds)
        except RewardError as error:
            return [component.unscored(error) for _ in call.rollouts]


def are_given(names: Iterable[str], rewards: Iterable[Reward]) -> bool:
    """Whether there is a reward of each of these names, or a component of it (``name.key``)."""
    given = {reward.name for reward in rewards}
    return all(any(one == name or one.startswith(f"{name}.") for one in given) for name in names)


NEEDS_A_NAME = (
    "needs a main thread, which only a process of its own has: put it at the top level of a module and name it in the "
    "config, as module:function"
)


async def _call(component: Component, call: Call) -> Any:
    if component.is_async:
        return await component.call(call)
    value = await call_in_thread(component.call, call)
    return await value if isinstance(value, Awaitable) else value
