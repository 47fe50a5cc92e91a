"""Running the first rollout of a run, and asking it what there is to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from agentlightning.check.report import CheckReport
from agentlightning.check.verdict import inspect_rollout
from agentlightning.check.watch import calls_outside, logged_warnings, notice_when_slow
from agentlightning.group_rewards import GroupRewards
from agentlightning.records import AnyResource, Task
from agentlightning.runner import Runner
from agentlightning.store.base import Store
from agentlightning.tracebacks import running_now
from agentlightning.work_orders import WorkOrders

CHECKED_TASKS = 3


class FirstRollouts:
    """The first rollouts of one run, with the resources that it has published. ``message`` takes what a person should
    read while they last."""

    def __init__(
        self,
        run_id: str,
        store: Store,
        runner: Runner,
        orders: WorkOrders,
        resources: Sequence[AnyResource],
        train: Sequence[str],
        message: Callable[[str], None],
    ) -> None:
        self._run_id = run_id
        self._store = store
        self._runner = runner
        self._orders = orders
        self._resources = resources
        self._train = train
        self._message = message

    async def check(self, tasks: Sequence[Task], start_seconds: float) -> CheckReport | None:
        """Runs one task after another until a rollout is conclusive, `CHECKED_TASKS` at most; the last one's report.

        None where the run was checked before it was cut off, and nothing was wrong.
        """
        rollouts = await self._store.rollouts(self._run_id, purpose="check")
        known = [rollout.id for rollout in rollouts if rollout.finished]
        if known and not (await self._inspect(known[-1], Task(id="", input=None))).errors:
            return None
        puzzles: list[str] = []
        for number, task in enumerate(tasks[:CHECKED_TASKS], len(known) + 1):
            report = await self._run(task, number, start_seconds)
            if report.conclusive:
                break
            puzzles += [f"task {task.id}: {error}" for error in report.errors]
        if not report.errors:
            report.warnings = [*puzzles, *report.warnings]
        return report

    async def _run(self, task: Task, number: int, start_seconds: float) -> CheckReport:
        planned = self._orders.plan(f"check/{number}", [task], 1, purpose="check")
        queued = await self._orders.enqueue(planned, self._resources)
        hung_before = running_now()
        # Where a worker runs the agent, its code is nowhere here.
        noticing = notice_when_slow(self._message) if self._runner.runs_agent_here else nullcontext()
        with logged_warnings() as logged, calls_outside() as outside, noticing:
            ended = self._runner.run(queued, {task.id: task}, self._resources)
            async for _ in GroupRewards(self._runner.setup).when_scored(ended, queued, {task.id: task}):
                pass
        hung = [line for line in running_now() if line not in hung_before]
        return await self._inspect(
            queued[0].id, task, start_seconds=start_seconds, outside=outside, running=hung, logged=logged
        )

    async def _inspect(self, id: str, task: Task, **observed: Any) -> CheckReport:
        rollout, spans = await self._store.rollout_with_spans(id)
        return inspect_rollout(task, rollout, spans, resources=self._resources, train=self._train, **observed)
