"""One training run: what `agentlightning.algorithm.Run` promises, kept on a store and a runner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from agentlightning.algorithm import Evaluation
from agentlightning.budget import Budget
from agentlightning.causes import explain_rollouts
from agentlightning.check import CheckReport, render
from agentlightning.check.first_rollout import CHECKED_TASKS, FirstRollouts
from agentlightning.checkpoints import RECORDED, remove_checkpoints, write_checkpoint, write_whole
from agentlightning.credit import BranchPoint
from agentlightning.data import batch_of_step, set_apart
from agentlightning.diagnostics import ANSWERED_BY_A_CACHE, ENOUGH_TASKS, BranchCounts, Counts, held_out_note
from agentlightning.errors import CheckError
from agentlightning.group_rewards import GroupRewards
from agentlightning.progress import Progress
from agentlightning.recorded import FromLive, best_recorded
from agentlightning.records import AnyResource, Policy, Purpose, Rollout, Span, Task, decode, encode
from agentlightning.report import evaluation_of
from agentlightning.runner import Runner
from agentlightning.store import open_store
from agentlightning.store.base import Checkpoint, Metric, Recorded, RunRecord, Store
from agentlightning.training_rows import Group, RolloutRows
from agentlightning.transitions import build_rows
from agentlightning.work_orders import WorkOrders

T = TypeVar("T")

logger = logging.getLogger(__name__)

Ended = tuple[Rollout, list[Span]]
"""A rollout that has ended, and the spans of its last attempt, as the store has them."""


class CheckDone(BaseException):
    """Ends an algorithm whose run was only to be checked."""


class TrainingRun:
    """Collects, evaluates, publishes, logs and checkpoints for one algorithm (`agentlightning.algorithm.Run`)."""

    def __init__(
        self,
        record: RunRecord,
        store: Store,
        runner: Runner,
        progress: Progress,
        *,
        tasks: Sequence[Task],
        held_out: Sequence[Task],
        train: Sequence[str],
        directory: Path,
        restored: Checkpoint | None = None,
        check_only: bool = False,
        budget: int | None = None,
    ) -> None:
        self.id = record.id
        self.seed = record.seed
        self.tasks = tasks
        self.held_out = held_out
        self.train = train
        self.directory = directory
        self.restored = restored
        self._record = record
        self._store = store
        self._runner = runner
        self._progress = progress
        self._orders = WorkOrders(record.id, store)
        self._budget = Budget(record.id, store, budget)
        self._group_rewards = GroupRewards(runner.setup)
        self._resources: dict[str, AnyResource] = {}
        self._counts = Counts()
        self._branches = BranchCounts()
        self._warned_of_calls = self._evaluated = False
        self._logged: dict[str, float] = {}
        self._check_only = check_only
        self._began = time.perf_counter()
        self.checked: CheckReport | None = None
        """The report of the first rollout, where there was one."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """What rollouts need to run is there inside the block."""
        return self._runner.running()

    async def check(self) -> None:
        """Runs the agent on one training task before anything is spent, and says what happened.

        Where another task may tell what this one cannot, up to `CHECKED_TASKS` are run. Raises `CheckError` where a run
        would be pointless. Goes on at once where the run was checked before it was cut off.
        """
        self.phase("first rollout")
        start_seconds = time.perf_counter() - self._began
        batch = self.batches(1)
        tasks = [batch(number)[0] for number in range(1, min(CHECKED_TASKS, len(self.tasks)) + 1)]
        report = await FirstRollouts(
            self.id,
            self._store,
            self._runner,
            self._orders,
            list(self._resources.values()),
            self.train,
            self._progress.message,
        ).check(tasks, start_seconds)
        if report is None:
            return
        self.checked = report
        if self._check_only:
            raise CheckDone
        self._progress.message(render(msgspec.structs.replace(report, errors=[])))  # those are raised
        if report.errors:
            raise CheckError("\n".join(report.errors))

    async def _only_check(self) -> None:
        """A run that is only checked ends here, whether or not its algorithm asks for the check."""
        if self._check_only:
            await self.check()

    def set_apart(self, count: int) -> list[Task]:
        """Takes so many tasks out of those that are trained on, by the run's seed."""
        self.tasks, apart = set_apart(self.tasks, count, self.seed)
        return apart

    async def rollouts_left(self) -> int | None:
        """How many rollouts are left of the run's budget; None where it has none."""
        return await self._budget.left()

    def batches(self, size: int) -> Callable[[int], list[Task]]:
        """Task batches by step, from 1: each epoch a permutation of its own, the same for the same seed.

        A batch that reaches over the end of an epoch goes on in the next; no task is left out.
        """
        return lambda step: batch_of_step(self.tasks, size, step, self.seed)

    async def collect(
        self,
        tasks: Sequence[Task],
        *,
        step: int,
        group_size: int = 1,
        resources: Sequence[AnyResource] = (),
        key: str | None = None,
    ) -> AsyncGenerator[Group, None]:
        """Runs the agent ``group_size`` times on each task; yields the groups in the order of ``tasks``."""
        await self._only_check()
        collection = self._orders.next_key(step) if key is None else key
        rollouts = self._orders.plan(collection, tasks, group_size, purpose="train", step=step)
        by_id = {task.id: task for task in tasks}
        groups: dict[str, list[Ended]] = {rollout.group_id: [] for rollout in rollouts}
        waiting = deque(groups)
        async with aclosing(self._finish_all(rollouts, by_id, resources, self._counts)) as finished:
            async for rollout, spans in finished:
                groups[rollout.group_id].append((rollout, spans))
                while waiting and len(groups[waiting[0]]) == group_size:
                    members = groups.pop(waiting.popleft())
                    group = _group(by_id[members[0][0].task_id], members)
                    self._counts.add_group(group)
                    self._warn_of_calls(group)
                    yield group

    async def branch(self, points: Sequence[BranchPoint], *, count: int, step: int) -> list[list[RolloutRows]]:
        """Runs the agent ``count`` times from each point; those that ended well, by point and sample."""
        collection = self._orders.next_key(step, "branch")
        rollouts = self._orders.plan_branches(collection, points, count, step=step)
        tasks = await self._store.tasks(self.id, {rollout.task_id for rollout in rollouts})
        found: dict[str, list[RolloutRows]] = {rollout.group_id: [] for rollout in rollouts}
        async for rollout, spans in self._finish_all(rollouts, tasks, (), Counts()):
            self._branches.add(rollout, spans)
            if rollout.is_trainable:
                rows = build_rows(rollout, spans)
                found[rollout.group_id].append(RolloutRows(rollout=rollout, spans=spans, rows=rows))
        return [sorted(members, key=lambda member: member.rollout.sample) for members in found.values()]

    def _warn_of_calls(self, group: Group) -> None:
        """Says, once a run, that rollouts made no call while others of their task did; the counts go with each step."""
        without = len(group.without_calls)
        if without and not self._warned_of_calls:
            self._warned_of_calls = True
            self._progress.message(
                f"task {group.task.id}: {without} of {len(group.rollouts)} rollouts made no call of the policy while "
                f"the others did, so there is nothing to train on in them: {ANSWERED_BY_A_CACHE}"
            )

    async def evaluate(
        self,
        *,
        step: int,
        variant: str = "",
        resources: Sequence[AnyResource] = (),
        tasks: Sequence[Task] | None = None,
        samples: int = 1,
        purpose: Purpose = "evaluate",
    ) -> Evaluation:
        """Runs the agent on the held-out tasks, or on ``tasks``, ``samples`` times each, after ``step`` training
        steps."""
        await self._only_check()
        tasks = self.held_out if tasks is None else tasks
        name = f"{purpose}/{step}/{variant}" if variant else f"{purpose}/{step}"
        if purpose == "evaluate":
            self._warn_of_few(tasks)
        rollouts = self._orders.plan(name, tasks, samples, purpose=purpose, step=step, variant=variant)
        by_id = {task.id: task for task in tasks}
        ended: dict[str, Rollout] = {}
        counts = Counts()
        async for rollout, _ in self._finish_all(rollouts, by_id, resources, counts):
            ended[rollout.id] = rollout
        evaluation = evaluation_of(
            [ended[rollout.id] for rollout in rollouts], by_id, step=step, variant=variant, purpose=purpose
        )
        if evaluation.rollouts and evaluation.mean is None:
            logger.warning("%s: no task could be scored: %s", name, explain_rollouts(evaluation.rollouts))
        self._progress.evaluation(evaluation, counts.metrics())
        return evaluation

    def _warn_of_few(self, tasks: Sequence[Task]) -> None:
        """Says, once a run, that so few held-out tasks can tell nothing."""
        if len(tasks) < ENOUGH_TASKS and not self._evaluated:
            self._progress.message(held_out_note(len(tasks)))
        self._evaluated = True

    async def spans(self, rollout: Rollout) -> list[Span]:
        """What happened in a rollout of this run, by index."""
        return await self._store.spans(rollout.id, attempt=rollout.attempt)

    async def recorded(self, which: FromLive, *, threshold: float | None) -> list[Recorded]:
        """The best of what was recorded of a deployed agent, kept in the run's folder."""
        kept = self.directory / RECORDED
        if not kept.exists():
            # What is only checked has a store of its own, in which nothing was recorded.
            url = which.store or (self._runner.setup.store_url if self._check_only else None)
            store = self._store if url is None else await asyncio.to_thread(open_store, url)
            try:
                found = await best_recorded(store, which, threshold=threshold)
            finally:
                if store is not self._store:
                    await store.close()
            await asyncio.to_thread(write_whole, kept, encode(found))
        recorded: list[Recorded] = decode(await asyncio.to_thread(kept.read_bytes), list[Recorded])
        return recorded

    async def publish(self, resource: AnyResource) -> None:
        """Makes a version of a resource the one that next rollouts use.

        A policy is for the agents that the run trains, unless the algorithm named others.
        """
        resource = self._for_trained_agents(resource)
        self._resources[resource.name] = resource
        await self._store.put_resource(self.id, resource)
        self._record.resources[resource.name] = resource.digest
        await self._store.update_run(self._record)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Keeps numbers of a step, with those of the rollouts that ended since the last."""
        metrics = {**self._counts.metrics(), **self._branches.metrics(), **metrics}
        self._counts, self._branches = Counts(), BranchCounts()
        now = time.time()
        self._store.add_metrics(
            [
                Metric(run_id=self.id, step=step, name=name, value=float(value), at=now)
                for name, value in metrics.items()
            ]
        )
        self._logged = metrics

    def progress(self, *, step: int, steps: int) -> None:
        """Says how far the run is."""
        self._progress.step(step, steps, self._logged)

    def stopped(self, *, step: int, reason: str) -> None:
        """Says that no step follows on ``step``, though there could be more, and why."""
        self.result("stopped", f"after step {step}: {reason}")
        self._progress.stopped(step, reason)

    def phase(self, name: str, *, done: int = 0, total: int = 0) -> None:
        """Says what goes on, where it is no rollout."""
        self._progress.phase(name, done, total)

    def result(self, name: str, value: str) -> None:
        """Says what came of the run."""
        self._record.results[name] = value

    async def checkpoint(
        self, step: int, state: Mapping[str, Any], write: Callable[[Path], None] | None = None
    ) -> None:
        """Makes a point to go on from; visible only once all of it is durable."""
        self.phase("writing a checkpoint")
        path = None
        if write is not None:
            path = await asyncio.to_thread(write_checkpoint, self.directory, f"step-{step}", write)
        await self._store.flush()
        await self._store.put_checkpoint(
            Checkpoint(
                run_id=self.id,
                step=step,
                state=dict(state),
                path=str(path) if path is not None else None,
                created_at=time.time(),
            )
        )
        await self._store.update_run(self._record)
        if path is not None:
            await asyncio.to_thread(remove_checkpoints, self.directory, "step", but=[path.name])

    def _for_trained_agents(self, resource: AnyResource) -> AnyResource:
        if isinstance(resource, Policy) and resource.agents == ("*",):
            return msgspec.structs.replace(resource, agents=tuple(self.train))
        return resource

    async def _finish_all(
        self,
        plan: Sequence[Rollout],
        tasks: Mapping[str, Task],
        resources: Sequence[AnyResource],
        counts: Counts,
    ) -> AsyncGenerator[Ended, None]:
        """Every planned rollout, finished and counted: those the store has as they were recorded, the rest run now."""
        applied = {**self._resources, **{item.name: self._for_trained_agents(item) for item in resources}}
        trains = any(isinstance(resource, Policy) for resource in applied.values())
        if not plan:
            return
        await self._budget.take(plan)
        known = await self._orders.enqueue(plan, applied.values())
        self._progress.collection(plan[0].collection, len(plan), purpose=plan[0].purpose)
        pending = [rollout for rollout in known if not self._runner.is_done(rollout)]
        done = [rollout.id for rollout in known if self._runner.is_done(rollout)]
        async with (
            aclosing(self._runner.run(pending, tasks, list(applied.values()))) as running,
            aclosing(self._group_rewards.when_scored(_chain(done, running), plan, tasks)) as ended,
        ):
            async for id in ended:
                rollout, spans = await self._store.rollout_with_spans(id)
                counts.add(rollout, spans, only_policy=trains)
                generations = (span.generation for span in spans)
                usages = (one.usage for one in generations if one is not None and one.usage is not None)
                self._progress.rollout(rollout, sum(usage.output_tokens for usage in usages))
                yield rollout, spans


async def _chain(first: Iterable[T], then: AsyncIterable[T]) -> AsyncIterator[T]:
    for item in first:
        yield item
    async for item in then:
        yield item


def _group(task: Task, members: Iterable[Ended]) -> Group:
    members = sorted(members, key=lambda member: member[0].sample)
    return Group(
        id=members[0][0].group_id,
        task=task,
        rollouts=[
            RolloutRows(rollout=rollout, spans=spans, rows=build_rows(rollout, spans))
            for rollout, spans in members
            if rollout.is_trainable
        ],
        excluded=[rollout for rollout, _ in members if not rollout.is_trainable],
    )
