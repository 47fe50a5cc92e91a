"""Reward plugins composed: by name and weight, every component apart, every failure typed.

A reward is a stranger's code. Whatever it does (raise anything, never return, end its process, give a number of 400
digits) is a ``reward_error`` of that rollout.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Sequence
from typing import Any

from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.errors import RewardError
from agentlightning.plugins import Plugins
from agentlightning.records import Failure, Reward, Rollout, Span, Task
from agentlightning.reward_component import Component, RewardLike, Scored, make_component
from agentlightning.reward_process import RewardProcesses
from agentlightning.threads import call_in_thread, needs_main_thread

logger = logging.getLogger(__name__)


class Scoring:
    """The rewards of a run. Each is a name, ``module:function``, a function, or any of these with a weight and
    options (`agentlightning.config.RewardConfig`).

    A reward is called as ``(rollout, task)``, or ``(rollout, task, spans)`` when it has a parameter of that
    name, and gives a number, a dict of numbers (components ``name.key``), or None: cannot be scored. A
    synchronous one runs in a thread; in a process of its own where its config says so, or where it turns out to need a
    main thread. A class is made with its ``Config``, where it has one, and called the
    same way. Raises `PluginError` and `ConfigError` before anything runs.
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

    async def score(
        self, rollout: Rollout, task: Task, spans: Sequence[Span], *, seconds: float = 60.0
    ) -> tuple[list[Reward], list[Failure]]:
        """What the rollout is worth, and a ``reward_error`` for each reward that raised, took longer than
        ``seconds``, or gave what is no reward.

        The failed ones have the value None: never zero in its place.
        """
        scored = await asyncio.gather(*(self._score(part, rollout, task, spans, seconds) for part in self._components))
        return [reward for one in scored for reward in one.rewards], [fail for one in scored for fail in one.failures]

    def close(self) -> None:
        """Ends the processes that rewards run in; they begin again when they are needed."""
        for processes in self._processes.values():
            processes.close()

    async def _score(
        self, part: Component, rollout: Rollout, task: Task, spans: Sequence[Span], seconds: float
    ) -> Scored:
        if part.in_process:
            return await self._score_in_process(part, rollout, task, spans, seconds)
        outcome = await run_bounded(_call(part, rollout, task, spans), seconds=seconds)
        if outcome.error is None:
            return part.scored(outcome.value)
        if isinstance(outcome.error, TimeLimitError):
            return part.unscored(RewardError(f"took longer than runner.reward_timeout = {seconds:g} s"))
        if needs_main_thread(outcome.error):
            if part.spec is not None:
                logger.info("reward %s needs a main thread: it runs in a process of its own from now on", part.name)
                part.in_process = True
                return await self._score_in_process(part, rollout, task, spans, seconds)
            return part.unscored(RewardError(f"{NEEDS_A_NAME}: {outcome.error}"))
        return part.unscored(outcome.error)

    async def _score_in_process(
        self, part: Component, rollout: Rollout, task: Task, spans: Sequence[Span], seconds: float
    ) -> Scored:
        if part.name not in self._processes:
            self._processes[part.name] = RewardProcesses(part)
        processes = self._processes[part.name]
        try:
            return await call_in_thread(processes.score, rollout, task, spans, seconds)
        except RewardError as error:
            return part.unscored(error)


NEEDS_A_NAME = (
    "needs a main thread, which only a process of its own has: put it at the top level of a module and name it in the "
    "config, as module:function"
)


async def _call(part: Component, rollout: Rollout, task: Task, spans: Sequence[Span]) -> Any:
    if part.is_async:
        return await part.call(rollout, task, spans)
    value = await call_in_thread(part.call, rollout, task, spans)
    return await value if isinstance(value, Awaitable) else value
