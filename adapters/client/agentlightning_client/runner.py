"""The runner ``clients``: rollouts wait in the store, are run by workers elsewhere (``agl work``), and scored here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import suppress

from agentlightning.attempts import LEASE_SECONDS
from agentlightning.config import Seconds, Section
from agentlightning.errors import StoreError
from agentlightning.records import AnyResource, Rollout, Task
from agentlightning.rollout_rewards import RolloutRewards
from agentlightning.runner import Runner, RunnerSetup
from agentlightning.store.base import RunRecord
from agentlightning_client.attendance import Attendance

NAMES = ("clients", "agentlightning_client.runner:ClientsRunner")


class ClientsConfig(Section):
    """The options of the runner: a run fails where no worker has leased one of its rollouts for ``wait_seconds``."""

    wait_seconds: Seconds = 600.0


class ClientsRunner(Runner):
    """Waits for the rollouts that workers run, and gives them their rewards: a worker needs the agent alone."""

    Options = ClientsConfig
    runs_agent_here = False
    needs_workers = True

    def __init__(self, setup: RunnerSetup, options: ClientsConfig) -> None:
        super().__init__(setup, options)
        self._store = setup.store
        self._rewards = RolloutRewards(setup)
        self._wait_seconds = options.wait_seconds
        self._held: dict[str, Rollout] = {}
        self._scoring_slots = asyncio.Semaphore(setup.config.concurrency)

    def is_done(self, rollout: Rollout) -> bool:
        """Never: one that has ended may have been cut off before it was scored."""
        return False

    async def run(
        self, rollouts: Sequence[Rollout], tasks: Mapping[str, Task], resources: Sequence[AnyResource]
    ) -> AsyncGenerator[str, None]:
        """Waits for the rollouts, and scores them. Closing the generator keeps back those that no worker has begun,
        until they are asked for again or the run ends; what runs at a worker ends there."""
        await self._release(rollouts)
        waiting = {rollout.id: rollout for rollout in rollouts}
        attendance = Attendance(self.setup, self._wait_seconds)
        ended: asyncio.Task[list[Rollout]] | None = None
        scoring: set[asyncio.Task[str]] = set()
        try:
            while waiting or scoring:
                if waiting and ended is None:
                    ended = asyncio.create_task(self._next_ended(waiting.values(), attendance))
                everything = [*scoring, ended] if ended is not None else [*scoring]
                await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
                if ended is not None and ended.done():
                    for rollout in ended.result():
                        known = waiting.pop(rollout.id)
                        task = tasks[known.task_id]
                        scoring.add(asyncio.create_task(self._scored(rollout.id, task, is_new=not known.finished)))
                    ended = None
                for done in [task for task in scoring if task.done()]:
                    scoring.remove(done)
                    yield done.result()
        finally:
            left = [*scoring, ended] if ended is not None else [*scoring]
            for one in left:
                one.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self._hold(waiting)

    async def _next_ended(self, waiting: Collection[Rollout], attendance: Attendance) -> list[Rollout]:
        ids = {rollout.id for rollout in waiting}
        collections = {rollout.collection for rollout in waiting}
        while True:
            ended = await self._store.wait(ids, seconds=attendance.look_seconds)
            if ended:
                attendance.heard()
                return ended
            found = [await self._store.rollouts(self.setup.run.id, collection=name) for name in collections]
            attendance.look(rollout for some in found for rollout in some if rollout.id in ids)

    async def _scored(self, id: str, task: Task, *, is_new: bool) -> str:
        """Gives a rollout that has ended the rewards that it lacks."""
        async with self._scoring_slots:
            completed = await self._rewards.complete(id, task)
        if (is_new or completed) and not self.setup.scoring.group_rewards:
            rollout, spans = await self._store.rollout_with_spans(id)
            self.setup.notify("rollout_finished", rollout=rollout, task=task, spans=spans)
        return id

    async def _hold(self, waiting: Collection[str]) -> None:
        """Leases what nobody has begun, so that no worker spends its time on it."""
        if not waiting:
            return
        with suppress(StoreError):  # where the store has failed, the run ends of that
            held = await self._store.lease(self.worker, ids=list(waiting), limit=len(waiting), seconds=LEASE_SECONDS)
            self._held.update({rollout.id: rollout for rollout in held})

    async def _release(self, rollouts: Sequence[Rollout]) -> None:
        for held in [self._held.pop(rollout.id) for rollout in rollouts if rollout.id in self._held]:
            held.status = "queued"
            await self._store.finish(held)


def is_for_workers(run: RunRecord) -> bool:
    """Whether the rollouts of a run are for workers to run."""
    runner = run.config.get("runner")
    return isinstance(runner, dict) and runner.get("name") in NAMES
