"""Rollouts in this process: run, time out, retry, cancel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from agentlightning.agent_here import AgentHere, Perform
from agentlightning.attempts import LEASE_SECONDS, Attempts, seed_of
from agentlightning.errors import AdapterError
from agentlightning.recording import outside
from agentlightning.records import AnyResource, Rollout, Task
from agentlightning.rollout_rewards import RolloutRewards
from agentlightning.runner import Runner, RunnerSetup

OTHER_WORKER_SECONDS = 5.0
"""How long, each time, a rollout is waited for that another worker has leased: it ends there, or that lease does."""


class LocalRunner(Runner):
    """Runs an agent on tasks in this process, many at once on one event loop.

    Every attempt is leased from the store, recorded, scored, and written. A failure of the infrastructure is tried
    again; the agent's own failures are results.
    """

    def __init__(self, setup: RunnerSetup, options: Any) -> None:
        super().__init__(setup, options)
        self._store = setup.store
        self._config = setup.config
        self._rewards = RolloutRewards(setup)
        self._attempts = Attempts(
            self.performing(), setup.store, retries=setup.config.retries, score=self._rewards.give
        )

    def performing(self) -> Perform:
        """What runs the agent."""
        setup = self.setup
        if setup.adapter is None:
            raise AdapterError(
                f"run {setup.run.id}: its runner runs the agent in this process, which has not loaded it"
            )
        return AgentHere(setup.agent, setup.adapter, timeout=setup.config.timeout).perform

    def is_done(self, rollout: Rollout) -> bool:
        """Whether it has ended, and has its rewards: one that ended at a worker may have been cut off before."""
        return rollout.finished and not self._rewards.may_lack_some(rollout)

    async def run(
        self, rollouts: Sequence[Rollout], tasks: Mapping[str, Task], resources: Sequence[AnyResource]
    ) -> AsyncGenerator[str, None]:
        waiting = deque(rollouts)
        ended: asyncio.Queue[str | BaseException] = asyncio.Queue()

        async def work() -> None:
            try:
                with outside():  # a reward's model calls are part of no rollout
                    while waiting:
                        rollout = waiting.popleft()
                        await self._finish(rollout.id, tasks[rollout.task_id], resources)
                        await ended.put(rollout.id)
            except BaseException as error:  # noqa: BLE001 - raised again by the consumer
                await ended.put(error)

        workers = [asyncio.create_task(work()) for _ in range(min(self._config.concurrency, len(waiting)))]
        try:
            for _ in rollouts:
                item = await ended.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _finish(self, id: str, task: Task, resources: Sequence[AnyResource]) -> None:
        """Runs a rollout until it has ended, here or at another worker that has its lease."""
        while True:
            leased = await self._store.lease(self.worker, ids=[id], limit=1, seconds=LEASE_SECONDS)
            if not leased:
                if await self._store.wait([id], seconds=OTHER_WORKER_SECONDS):
                    await self._rewards.complete(id, task)  # of a worker that has none
                    return
                continue
            (rollout,) = leased
            spans = await self._attempts.run(rollout, task, resources, seed=seed_of(self.setup.run, rollout))
            if spans is None:
                continue
            if not self.setup.scoring.group_rewards:  # else it is finished when its group is scored
                self.setup.notify("rollout_finished", rollout=rollout, task=task, spans=spans)
            return
