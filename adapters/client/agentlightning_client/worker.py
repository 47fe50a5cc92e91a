"""A Lightning Client: it leases the rollouts of runs whose runner is ``clients``, runs the agent on them, and writes
what came of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.agent_here import AgentHere, Perform
from agentlightning.attempts import LEASE_SECONDS, Attempts, renewing_leases, seed_of, worker_name
from agentlightning.config import RunnerConfig
from agentlightning.loop_watch import watching_loop
from agentlightning.recording import outside
from agentlightning.records import AnyResource, Failure, Rollout, Task
from agentlightning.store.base import RunRecord, Store
from agentlightning_client.errors import ClientError
from agentlightning_client.runner import is_for_workers

logger = logging.getLogger(__name__)

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two looks for rollouts, at least and at most: the longer, the longer there was none."""
LOOK_SECONDS = 1.0
"""How often to see whether the runs that are worked for go on, and for others where there is none."""
LIST_SECONDS = 5.0
"""How often to look for others while there is one."""
MOST_ATTEMPTS_LOST = 10
"""A rollout that was begun so often and not ended ends its workers, it seems."""

Performing = Callable[[float, str], Perform]
"""What runs the agent, for so many seconds at most, which is the option named."""


def agent_here(agent: Any, adapter: Adapter) -> Performing:
    """An agent in this process."""
    return lambda timeout, limit: AgentHere(agent, adapter, timeout=timeout, limit=limit).perform


class Worker:
    """Runs an agent on rollouts of one store, ``concurrency`` at once, each for ``timeout`` seconds at most (where the
    run allows it no less). ``performing`` is asked once for each run for what runs the agent.

    ``run_id`` is that of the only run to work for; ``say`` takes what a person should read. A worker that vanishes
    loses its leases after ``lease_seconds``.
    """

    def __init__(
        self,
        store: Store,
        performing: Performing,
        *,
        run_id: str | None = None,
        concurrency: int = 16,
        timeout: float | None = None,
        forever: bool = False,
        lease_seconds: float = LEASE_SECONDS,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self.name = worker_name()
        self.finished = 0
        """Rollouts that have ended here."""
        self._store = store
        self._performing = performing
        self._run_id = run_id
        self._concurrency = concurrency
        self._timeout = timeout
        self._forever = forever
        self._lease_seconds = lease_seconds
        self._say = say
        self._attempts: dict[str, Attempts] = {}
        self._known: list[RunRecord] = []
        self._look_again = self._list_again = 0.0
        self._running: dict[asyncio.Task[bool], Rollout] = {}

    async def work(self) -> None:
        """Works until the runs have ended that it has worked for; ``forever``, until this is cancelled. What it has
        leased is queued again at its end.

        Raises `StoreError` where the store fails.
        """
        async with renewing_leases(self._store, self.name, seconds=self._lease_seconds):
            try:
                with watching_loop(), outside():
                    await self._serve()
            finally:
                await self._give_back(list(self._running))

    async def _serve(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            runs = await self._runs()
            ids = {run.id for run in runs}
            await self._give_back([task for task, rollout in self._running.items() if rollout.run_id not in ids])
            if not runs and self._attempts and not self._forever:
                return
            began = [await self._begin(run) for run in runs]
            pause = SHORTEST_PAUSE if any(began) else min(2 * pause, LONGEST_PAUSE)
            await self._pause(pause * random.uniform(0.5, 1.0))

    async def _runs(self) -> list[RunRecord]:
        """The runs that may have something to do, as they stood a second ago at most."""
        now = time.monotonic()
        if now < self._look_again:
            return self._known
        self._look_again = now + LOOK_SECONDS
        if self._run_id is not None:
            found = [await self._store.run(self._run_id)]
        elif self._known and now < self._list_again:
            found = [await self._store.run(run.id) for run in self._known]
        else:
            self._list_again = now + LIST_SECONDS
            found = [*await self._store.runs()]
        self._known = [run for run in found if run is not None and run.status == "running" and is_for_workers(run)]
        for run in self._known:
            if run.id not in self._attempts:
                self._attempts[run.id] = self._attempts_of(run)
                self._say(f"working for run {run.id}")
        return self._known

    def _attempts_of(self, run: RunRecord) -> Attempts:
        config = msgspec.convert(run.config["runner"], RunnerConfig)
        timeout, limit = config.timeout, "runner.timeout"
        if self._timeout is not None and self._timeout < timeout:
            timeout, limit = self._timeout, "--timeout"
        return Attempts(self._performing(timeout, limit), self._store, retries=config.retries)

    async def _begin(self, run: RunRecord) -> bool:
        """Leases as many rollouts as can run; whether there were any."""
        free = self._concurrency - len(self._running)
        if free <= 0:
            return False
        leased = await self._store.lease(self.name, run_id=run.id, limit=free, seconds=self._lease_seconds)
        for rollout in leased:
            self._running[asyncio.create_task(self._run(run, rollout))] = rollout
        return bool(leased)

    async def _pause(self, seconds: float) -> None:
        """Until a rollout has ended, or the time has passed."""
        if not self._running:
            await asyncio.sleep(seconds)
            return
        ended, _ = await asyncio.wait(self._running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            del self._running[task]
            self.finished += task.result()

    async def _run(self, run: RunRecord, rollout: Rollout) -> bool:
        """One attempt; whether it has ended its rollout."""
        try:
            task, resources = await self._needs(run, rollout)
        except ClientError as error:
            rollout.status = "failed"
            rollout.failure = Failure(type="not_runnable", message=str(error), fault="infrastructure")
            return await self._store.finish(rollout)
        spans = await self._attempts[run.id].run(rollout, task, resources, seed=seed_of(run, rollout))
        return spans is not None

    async def _needs(self, run: RunRecord, rollout: Rollout) -> tuple[Task, list[AnyResource]]:
        """The task and the resources that a rollout runs with. Raises `ClientError` where it cannot run."""
        lost = rollout.attempt - 1 - len(rollout.failed_attempts)
        if lost > MOST_ATTEMPTS_LOST:
            raise ClientError(
                f"{lost} attempts of it were begun and not ended: the agent seems to end its workers with this task"
            )
        task = (await self._store.tasks(run.id, [rollout.task_id])).get(rollout.task_id)
        if task is None:
            raise ClientError(f"task {rollout.task_id} of run {run.id} is not in the store")
        # Read each time: a run that goes on serves the policy of the same digest somewhere else.
        found = [await self._store.resource(run.id, digest) for digest in rollout.resources.values()]
        resources = [resource for resource in found if resource is not None]
        if len(resources) < len(found):
            names = [name for name, one in zip(rollout.resources, found, strict=True) if one is None]
            raise ClientError(f"resources of run {run.id} are not in the store: {', '.join(names)}")
        return task, resources

    async def _give_back(self, tasks: Collection[asyncio.Task[bool]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            rollout = self._running.pop(task)
            if task.cancelled():  # maybe before it began, when nobody has given it back yet
                rollout.status = "queued"
                await self._store.finish(rollout)
