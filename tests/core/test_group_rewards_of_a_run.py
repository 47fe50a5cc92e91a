"""Group rewards in a run: given when a group has ended, kept by the store, and reported, learned from and resumed like
any other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from doing import Doing

from agentlightning import Trainer
from agentlightning.config import RunnerConfig
from agentlightning.errors import RedirectError
from agentlightning.records import Rollout, Task
from agentlightning.store import open_store

TASKS = [{"id": f"t{number}", "input": number} for number in range(3)]


class Shortest:
    """1 for the rollouts whose output is the least of their group; keeps whom it saw together."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def __call__(self, rollouts: list[Rollout], task: Task) -> list[float]:
        self.seen.append([rollout.id for rollout in rollouts])
        least = min(rollout.output for rollout in rollouts)
        return [float(rollout.output == least) for rollout in rollouts]


class Counting:
    """An agent whose every call gives the next number."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, number: int) -> int:
        self.calls += 1
        return self.calls


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Awaitable[Any]]:
    async def run(body: Any, reward: Any, agent: Any = None, *, resume: bool = False, **options: Any) -> Any:
        trainer = Trainer(
            agent or Counting(),
            TASKS,
            reward,
            Doing(body),
            held_out=TASKS[:1],
            directory=tmp_path / "runs",
            store=f"sqlite:///{tmp_path}/store.db",
            name="run",
            runner=RunnerConfig(concurrency=1, retries=0),
            **options,
        )
        return await trainer.fit_async(resume=resume)

    return run


async def test_each_group_is_scored_when_it_has_ended(fit: Any, tmp_path: Path) -> None:
    reward, groups = Shortest(), []

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks, group_size=3, step=1):
            groups.append(group)

    result = await fit(body, reward)
    assert [[one.rollout.outcome for one in group.rollouts] for group in groups] == [[1.0, 0.0, 0.0]] * 3
    assert reward.seen == [[one.rollout.id for one in group.rollouts] for group in groups]
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    stored = {rollout.id: rollout for rollout in await store.rollouts(result.run_id)}
    await store.close()
    for group in groups:
        for one in group.rollouts:
            assert stored[one.rollout.id].rewards == one.rollout.rewards


async def test_an_evaluation_is_scored_over_the_samples_of_a_task(fit: Any) -> None:
    evaluations = []

    async def body(run: Any) -> None:
        evaluations.append(await run.evaluate(step=0, samples=4))

    await fit(body, Shortest())
    assert evaluations[0].rewards == [0.25]


async def test_what_infrastructure_broke_is_not_among_them(fit: Any) -> None:
    counting, groups = Counting(), []

    def agent(number: int) -> int:
        if counting(number) == 1:
            raise RedirectError("no route")
        return counting.calls

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks[:1], group_size=3, step=1):
            groups.append(group)

    def broken_first(rollouts: list[Rollout], task: Task) -> list[float]:
        assert [rollout.sample for rollout in rollouts] == [1, 2]
        return [0.0, 1.0]

    await fit(body, broken_first, agent=agent)
    assert [one.rollout.outcome for one in groups[0].rollouts] == [0.0, 1.0]
    assert [rollout.sample for rollout in groups[0].excluded] == [0]


async def test_one_that_raises_leaves_its_group_out_and_the_run_goes_on(fit: Any) -> None:
    groups = []

    def picky(rollouts: list[Rollout], task: Task) -> list[float]:
        if task.id == "t1":
            raise LookupError("no judge")
        return [1.0 for _ in rollouts]

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks, group_size=2, step=1):
            groups.append(group)

    await fit(body, picky)
    by_task = {group.task.id: (len(group.rollouts), len(group.excluded)) for group in groups}
    assert by_task == {"t0": (2, 0), "t1": (0, 2), "t2": (2, 0)}
    (failure,) = {rollout.failure.message for group in groups for rollout in group.excluded}
    assert failure.startswith("reward 'picky' raised LookupError: no judge")


async def test_a_resumed_run_scores_no_group_twice(fit: Any) -> None:
    shortest, groups, crashed = Shortest(), [], asyncio.Event()

    async def reward(rollouts: list[Rollout], task: Task) -> list[float]:
        if task.input == 2:  # what is being scored when a run ends is scored again
            await crashed.wait()
        return shortest(rollouts, task)

    async def crashes(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, group_size=2, step=1)) as collected:
            async for group in collected:
                groups.append(group)
                if len(groups) == 2:
                    raise RuntimeError("crashed")

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks, group_size=2, step=1):
            groups.append(group)

    with pytest.raises(RuntimeError, match="crashed"):
        await fit(crashes, reward)
    crashed.set()
    await fit(body, reward, resume=True)
    assert sorted(shortest.seen) == sorted([one.rollout.id for one in group.rollouts] for group in groups[2:])
    before, after = groups[:2], groups[2:4]
    assert [one.rollout.rewards for group in before for one in group.rollouts] == [
        one.rollout.rewards for group in after for one in group.rollouts
    ]


async def test_the_first_rollout_is_scored_alone(tmp_path: Path) -> None:
    async def body(run: Any) -> None:
        await run.check()

    reward = Shortest()
    report = await Trainer(
        Counting(),
        TASKS,
        reward,
        Doing(body),
        held_out=TASKS[:1],
        directory=tmp_path / "runs",
        store=f"sqlite:///{tmp_path}/store.db",
    ).check_async()
    assert [len(together) for together in reward.seen] == [1]
    assert report.rollout.outcome == 1.0
    assert report.errors == []
