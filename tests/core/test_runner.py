"""Runners: what is left early is cancelled, what another worker has finished is its, and the store is what counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doing import Doing

from agentlightning import Trainer, annotate
from agentlightning.attempts import LONGEST_BACKOFF_SECONDS, backoff_seconds
from agentlightning.config import RunnerConfig, Section
from agentlightning.errors import ConfigError, PluginError
from agentlightning.local_runner import LocalRunner
from agentlightning.records import Reward, Rollout
from agentlightning.runner import Runner
from agentlightning.store import open_store
from agentlightning.store.sqlite import SQLiteStore
from agentlightning.training_rows import Group

TASKS = [{"id": f"t{number}", "input": number} for number in range(4)]


def positive(rollout: Rollout, task: Any) -> float:
    return 1.0


async def fit(folder: Path, agent: Any, body: Callable[[Any], Awaitable[None]], **options: Any) -> str:
    options = {"store": f"sqlite:///{folder}/store.db", **options}
    trainer = Trainer(
        agent, TASKS, positive, Doing(body), held_out=TASKS[:1], directory=folder / "runs", name="run", **options
    )
    return (await trainer.fit_async()).run_id


async def stored(folder: Path, run_id: str) -> Sequence[Rollout]:
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        return await store.rollouts(run_id)
    finally:
        await store.close()


async def test_leaving_a_collection_early_cancels_what_runs(tmp_path: Path) -> None:
    cancelled: list[int] = []

    async def agent(number: int) -> int:
        try:
            await asyncio.sleep(0 if number == 0 else 3600)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async def body(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, step=1)) as groups:
            async for _ in groups:
                break
        assert sorted(cancelled) == [1, 2, 3]

    run_id = await fit(tmp_path, agent, body)
    assert [rollout.status for rollout in await stored(tmp_path, run_id)] == ["succeeded", *["queued"] * 3]


async def test_what_was_left_runs_when_its_collection_is_asked_for_again(tmp_path: Path) -> None:
    calls: list[int] = []
    found: list[int] = []

    async def agent(number: int) -> int:
        calls.append(number)
        return number

    async def body(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, step=1, key="probe")) as groups:
            async for _ in groups:
                break
        found.extend([len(group.rollouts) async for group in run.collect(run.tasks, step=1, key="probe")])

    await fit(tmp_path, agent, body, runner=RunnerConfig(concurrency=1))
    assert found == [1] * 4
    assert sorted(set(calls)) == [0, 1, 2, 3]


async def test_a_rollout_that_another_worker_has_finished_is_what_that_one_wrote(tmp_path: Path) -> None:
    """The first worker's lease ends while its agent runs, a second one leases the rollout and finishes it; what the
    first one then has is nobody's result."""

    class ShortLeases(SQLiteStore):
        async def lease(self, worker: str, *, seconds: float = 60.0, **chosen: Any) -> list[Rollout]:
            return await super().lease(worker, seconds=60.0 if worker == "second" else 0.0, **chosen)

    store = ShortLeases(tmp_path / "store.db")
    outputs: list[Any] = []

    async def agent(number: int) -> str:
        (taken,) = await store.lease("second", limit=1)
        taken.status, taken.output, taken.rewards = "succeeded", "the second's", [Reward(name="positive", value=7.0)]
        assert await store.finish(taken)
        return "the first's"

    async def body(run: Any) -> None:
        groups: list[Group] = [group async for group in run.collect(run.tasks[:1], step=1)]
        outputs.extend((one.rollout.output, one.rollout.outcome, one.rollout.attempt) for one in groups[0].rollouts)

    await fit(tmp_path, agent, body, store=store)
    await store.close()
    assert outputs == [("the second's", 7.0, 2)]


async def test_a_rollout_that_another_worker_has_is_waited_for_and_gets_the_rewards_that_it_lacks(
    tmp_path: Path,
) -> None:
    outputs: list[Any] = []

    class Taken(SQLiteStore):
        """Its rollouts are leased by a second worker as they are queued, which ends them when somebody waits."""

        async def enqueue(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
            queued = await super().enqueue(rollouts)
            (self.taken,) = await super().lease("second")
            return queued

        async def wait(self, ids: Any, *, seconds: float | None = None) -> list[Rollout]:
            self.taken.status, self.taken.output = "succeeded", "the second's"
            await self.finish(self.taken)
            return await super().wait(ids, seconds=seconds)

    async def agent(number: int) -> str:
        return "the first's"

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks[:1], step=1):
            outputs.extend((one.rollout.output, one.rollout.outcome) for one in group.rollouts)

    store = Taken(tmp_path / "store.db")
    await fit(tmp_path, agent, body, store=store)
    await store.close()
    assert outputs == [("the second's", 1.0)]


def test_rollouts_that_met_one_limit_do_not_come_back_at_once() -> None:
    ids = [f"{number:016x}" for number in range(64)]
    first = [backoff_seconds(id, 1) for id in ids]
    assert len({round(seconds, 3) for seconds in first}) > 55
    assert all(0.5 <= seconds <= 1.0 for seconds in first)
    assert all(1.0 <= backoff_seconds(id, 2) <= 2.0 for id in ids)
    assert all(backoff_seconds(id, 1000) <= LONGEST_BACKOFF_SECONDS for id in ids)
    assert first == [backoff_seconds(id, 1) for id in ids]


class Elsewhere(Runner):
    """A worker with a connection of its own to the same store, as in another process."""

    class Options(Section):
        path: str

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.store = SQLiteStore(self.options.path)
        self.worker = LocalRunner(replace(self.setup, store=self.store), None)
        async with self.worker.running():
            yield
        await self.store.close()

    async def run(self, rollouts: Any, tasks: Any, resources: Any) -> AsyncGenerator[str, None]:
        async with aclosing(self.worker.run(rollouts, tasks, resources)) as ended:
            async for id in ended:
                yield id


async def test_a_run_learns_from_what_its_store_holds_wherever_its_rollouts_ran(tmp_path: Path) -> None:
    found: list[Any] = []

    async def agent(number: int) -> int:
        annotate("thought", text=str(number))
        return number

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks, step=1):
            for one in group.rollouts:
                found.append((one.rollout.output, [span.name for span in one.spans]))

    config = RunnerConfig(name=f"{__name__}:Elsewhere", config={"path": f"{tmp_path}/store.db"})
    await fit(tmp_path, agent, body, runner=config)
    assert found == [(number, ["agent", "thought"]) for number in range(4)]


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        (RunnerConfig(name="cloud"), PluginError, "runner 'cloud'"),
        (RunnerConfig(config={"workers": 4}), ConfigError, "runner.config.workers: unknown key"),
        (RunnerConfig(name=f"{__name__}:Elsewhere"), ConfigError, "runner.config.path: missing"),
    ],
)
def test_a_runner_that_is_not_there_or_has_no_such_option_is_refused(
    tmp_path: Path, config: RunnerConfig, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Trainer(positive, TASKS, algorithm=Doing(positive), runner=config, directory=tmp_path)
