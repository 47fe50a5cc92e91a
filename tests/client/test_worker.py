"""Workers: what becomes of their rollouts when they stop, are killed, fail, or have nothing that they may run."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from doing import Doing

from agentlightning import Trainer
from agentlightning.agents import load_agent
from agentlightning.cli import main
from agentlightning.config import RunnerConfig
from agentlightning.errors import RedirectError
from agentlightning.plugins import plugins
from agentlightning.records import Rollout
from agentlightning.store import RunRecord, open_store
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_client.worker import Worker, agent_here

TASKS = [{"id": f"t{number}", "input": number} for number in range(4)]


def always(rollout: Rollout, task: Any) -> float:
    return 1.0


Fit = Callable[..., Any]


@pytest.fixture
def fit(folder: Path, url: str) -> Fit:
    """One collection of four rollouts, run by workers; the id of its run."""

    async def run(agent: str = "elsewhere:first_waits", **options: Any) -> str:
        async def body(run: Any) -> None:
            async for _ in run.collect(run.tasks, step=1):
                pass

        config = {"name": "clients", "config": {"wait_seconds": 100}, **options}
        trainer = Trainer(
            *(agent, TASKS, always, Doing(body)),
            held_out=TASKS[:1],
            runner=RunnerConfig(**config),
            store=url,
            directory=folder / "runs",
        )
        return (await trainer.fit_async()).run_id

    return run


async def pid_of_the_first(folder: Path) -> int:
    return int(await asyncio.to_thread((folder / "who").read_text))


async def test_two_workers_share_a_collection(
    fit: Fit, start_worker: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    workers = [start_worker("elsewhere:together", "--concurrency", "1") for _ in range(2)]
    run_id = await fit("elsewhere:together")
    assert {rollout.output for rollout in await stored(run_id)} == {worker.pid for worker in workers}
    assert [await asyncio.to_thread(worker.wait) for worker in workers] == [0, 0]


async def test_what_a_worker_had_that_was_killed_another_one_does(
    fit: Fit, folder: Path, start_worker: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    killed = start_worker("elsewhere:first_waits", lease_seconds=5.0)
    running = asyncio.create_task(fit())
    assert await pid_of_the_first(folder) == killed.pid
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = {rollout.id: rollout for rollout in await stored() if rollout.finished}
    other = start_worker("elsewhere:first_waits")
    rollouts = {rollout.id: rollout for rollout in await stored(await running)}
    assert {rollout.status for rollout in rollouts.values()} == {"succeeded"}
    assert max(rollout.attempt for rollout in rollouts.values()) > 1
    for id, rollout in rollouts.items():
        assert rollout.output == (killed.pid if id in before else other.pid)
        assert id not in before or (rollout.attempt, rollout.ended_at) == (before[id].attempt, before[id].ended_at)
        assert len(rollout.rewards) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_worker_that_is_stopped_gives_back_at_once_what_it_runs(
    fit: Fit,
    folder: Path,
    start_worker: Callable[..., Any],
    stored: Callable[..., Any],
    number: signal.Signals,
    code: int,
) -> None:
    stopped = start_worker("elsewhere:first_waits", "--concurrency", "1")
    running = asyncio.create_task(fit())
    assert await pid_of_the_first(folder) == stopped.pid
    stopped.send_signal(number)
    assert await asyncio.to_thread(stopped.wait) == code
    assert [rollout.status for rollout in await stored()] == ["queued"] * 4
    other = start_worker("elsewhere:first_waits")
    rollouts = await stored(await running)
    assert [rollout.output for rollout in rollouts] == [other.pid] * 4
    assert [rollout.attempt for rollout in rollouts] == [2, 1, 1, 1]


async def test_a_worker_ends_with_its_run_and_gives_back_what_still_runs_for_it(
    folder: Path, url: str, stored: Callable[..., Any]
) -> None:
    async def agent(number: int) -> int:
        await asyncio.sleep(3600 if number == 3 else 0)
        return number

    async def body(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, step=1)) as groups:
            for _ in range(3):
                await anext(groups)

    store = open_store(url)
    working = asyncio.create_task(Worker(store, agent_here(*load_agent(agent, plugins()))).work())
    trainer = Trainer(
        *("elsewhere:agent", TASKS, always, Doing(body)),
        held_out=TASKS[:1],
        runner=RunnerConfig(name="clients"),
        store=url,
        directory=folder / "runs",
    )
    run_id = (await trainer.fit_async()).run_id
    await working
    await store.close()
    assert [rollout.status for rollout in await stored(run_id)] == ["succeeded"] * 3 + ["queued"]


async def test_retries_are_counted_over_all_workers(
    fit: Fit, worker_beside: Callable[..., Any], stored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    calls: list[int] = []

    def unreachable(number: int) -> int:
        calls.append(number)
        raise RedirectError("the policy is gone")

    async with worker_beside(unreachable), worker_beside(unreachable):
        rollouts = await stored(await fit(retries=2))
    assert sorted(calls) == sorted([0, 1, 2, 3] * 3)
    for rollout in rollouts:
        assert (rollout.status, rollout.attempt, len(rollout.failed_attempts)) == ("failed", 3, 2)
        assert rollout.rewards == []


async def test_an_agent_has_the_runs_time_and_no_more(
    fit: Fit, worker_beside: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    async def never(number: int) -> None:
        await asyncio.sleep(3600)

    async with worker_beside(never, timeout=50.0):
        rollouts = await stored(await fit(timeout=0.2))
    assert {rollout.failure.type for rollout in rollouts} == {"timeout"}
    assert {rollout.outcome for rollout in rollouts} == {1.0}


async def test_a_worker_may_give_its_agents_less_time_than_the_run(
    fit: Fit, worker_beside: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    async def never(number: int) -> None:
        await asyncio.sleep(3600)

    async with worker_beside(never, timeout=0.2):
        rollouts = await stored(await fit())
    assert {rollout.failure.message for rollout in rollouts} == {"the agent took longer than --timeout = 0.2 s"}


async def test_a_rollout_that_ends_its_workers_is_given_up(
    fit: Fit, url: str, worker_beside: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    async def ends(number: int) -> int:
        return number

    running = asyncio.create_task(fit())
    store = SQLiteStore(url.removeprefix("sqlite:///"))
    lost = 0
    while lost < 11:  # so many workers have begun it, and were never heard of again
        lost += len(await store.lease("lost", limit=1, seconds=0.0))
        await asyncio.sleep(0)
    await store.close()
    async with worker_beside(ends):
        first, *others = await stored(await running)
    assert (first.status, first.failure.type, first.failure.fault) == ("failed", "not_runnable", "infrastructure")
    assert "11 attempts" in first.failure.message
    assert [rollout.status for rollout in others] == ["succeeded"] * 3


async def test_rollouts_of_runs_that_run_their_agent_themselves_are_left_alone(
    fit: Fit, folder: Path, url: str, worker_beside: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    async def agent(number: int) -> str:
        return "the worker's"

    async def body(run: Any) -> None:
        async for _ in run.collect(run.tasks, step=1):
            pass

    async def own(number: int) -> str:
        await asyncio.sleep(0.2)
        return "its own"

    async with worker_beside(agent, forever=True):
        alone = RunnerConfig(concurrency=1)
        trainer = Trainer(
            own, TASKS, always, Doing(body), held_out=TASKS[:1], runner=alone, store=url, directory=folder / "runs"
        )
        local = (await trainer.fit_async()).run_id
        clients = await fit()
    assert {rollout.output for rollout in await stored(local)} == {"its own"}
    assert {rollout.output for rollout in await stored(clients)} == {"the worker's"}


def work(url: str, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["work", url, *options])
    return result.exit_code, result.output


def test_an_agent_that_is_not_there_is_refused_before_anything_is_leased(folder: Path, url: str) -> None:
    command = [str(Path(sys.executable).with_name("agl")), "work", url, "--agent", "elsewhere:tow"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "elsewhere:tow: module 'elsewhere' has no 'tow'" in result.stderr
    assert not (folder / "store.db").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--run", "other"], "there is no run 'other'"),
        (["--run", "local-run"], "run local-run runs its agent itself; workers are for one with runner"),
        (["--run", "ended-run"], "run ended-run is not running (succeeded); --forever waits for it"),
    ],
)
def test_a_run_that_a_worker_can_do_nothing_for_is_refused(url: str, options: list[str], said: str) -> None:
    async def prepare() -> None:
        store = open_store(url)
        for id, runner in (("local-run", "local"), ("ended-run", "clients")):
            await store.open_run(RunRecord(id=id, name=id, algorithm="any", config={"runner": {"name": runner}}))
        await store.close_run("ended-run", "succeeded")
        await store.close()

    asyncio.run(prepare())
    code, output = work(url, "--agent", "stub_answers:text", *options)
    assert code == 2
    assert said in output
