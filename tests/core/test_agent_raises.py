"""Whatever an agent raises is a failure of its own rollout: the others end well, and so does the run."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import agentlightning as agl
from agentlightning import Algorithm, Trainer
from agentlightning import bounded as bounded_module
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import NoConfig, RunnerConfig
from agentlightning.records import Rollout

pytestmark = pytest.mark.timeout(60)

TASKS = [{"id": str(number), "input": number} for number in range(8)]
BAD = 3
"""The input at which the agent fails."""


class Once(Algorithm):
    async def run(self, run: Any) -> None:
        self.rollouts: dict[str, Rollout] = {}
        async for group in run.collect(run.tasks, group_size=1, step=1):
            for rollout in group.all_rollouts:
                self.rollouts[rollout.task_id] = rollout


@pytest.fixture
def run_all(tmp_path: Any) -> Callable[..., dict[str, Rollout]]:
    """Runs an agent on every task; gives the rollouts by task."""

    def run(agent: Any, reward: Any = lambda rollout, task: 1.0, **limits: Any) -> dict[str, Rollout]:
        algorithm = Once(NoConfig())
        trainer = Trainer(
            agent,
            TASKS,
            reward,
            algorithm,
            held_out=TASKS[:1],
            store=f"sqlite:///{tmp_path / 'store.db'}",
            directory=tmp_path / "runs",
            progress=make_progress(quiet=True),
            runner=RunnerConfig(**{"timeout": 30.0, **limits}),
        )
        assert trainer.fit().status == "succeeded"
        return algorithm.rollouts

    return run


class OwnError(BaseException):
    """An exception that `except Exception` does not catch."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


RAISED = [
    ValueError("no"),
    StopIteration("no"),
    StopAsyncIteration("no"),
    GeneratorExit("no"),
    KeyboardInterrupt("no"),
    SystemExit("usage: agent FILE"),
    asyncio.CancelledError("no"),
    concurrent.futures.CancelledError("no"),
    TimeoutError("no"),
    OwnError("no"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    BaseExceptionGroup("several", [SystemExit(1)]),
    RecursionError("no"),
    UnprintableError(),
]


def sync_agent(error: BaseException) -> Callable[[int], Any]:
    def agent(number: int) -> int:
        if number == BAD:
            raise error
        return number

    return agent


def async_agent(error: BaseException) -> Callable[[int], Any]:
    async def agent(number: int) -> int:
        await asyncio.sleep(0)
        if number == BAD:
            raise error
        return number

    return agent


def others_ended_well(rollouts: dict[str, Rollout]) -> bool:
    return all(rollout.output == int(task) for task, rollout in rollouts.items() if task != str(BAD))


@pytest.mark.parametrize("make", [sync_agent, async_agent])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_exception_of_any_type_fails_one_rollout(run_all: Any, make: Any, error: BaseException) -> None:
    rollouts = run_all(make(error))
    failed = rollouts[str(BAD)]
    assert len(rollouts) == len(TASKS)
    assert others_ended_well(rollouts)
    assert failed.status == "failed"
    assert failed.outcome == 1.0, "the agent's own failures keep the reward that the reward plugins give them"
    assert failed.failure is not None
    assert (failed.failure.type, failed.failure.fault) == ("agent_error", "agent")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit("usage: agent FILE"), "the agent raised SystemExit: usage: agent FILE"),
        (asyncio.CancelledError(), "the agent raised CancelledError, of a task or future that it had cancelled"),
        (KeyboardInterrupt(), "the agent raised KeyboardInterrupt"),
    ],
    ids=["exit", "cancelled", "interrupt"],
)
def test_what_was_raised_is_named(run_all: Any, error: BaseException, message: str) -> None:
    failure = run_all(async_agent(error))[str(BAD)].failure
    assert failure.message.startswith(message)
    assert failure.exception.endswith(type(error).__name__)
    assert "test_agent_raises.py" in failure.traceback


async def awaits_a_task_it_cancelled(number: int) -> int:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    if number == BAD:
        task.cancel()
    else:
        task.cancel()
        await asyncio.wait([task])
        return number
    await task
    return number


async def takes_the_result_of_a_cancelled_future(number: int) -> int:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    if number == BAD:
        future.cancel()
    else:
        future.set_result(number)
    return future.result()


def takes_the_result_of_a_cancelled_future_in_a_thread(number: int) -> int:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    if number == BAD:
        future.cancel()
    else:
        future.set_result(number)
    return future.result()


async def cancels_its_own_task(number: int) -> int:
    if number == BAD:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)
    return number


async def leaves_a_cancel_scope_open(number: int) -> int:
    if number == BAD:
        scope = anyio.CancelScope()
        scope.__enter__()
        scope.cancel()
        await anyio.sleep(60)
    return number


async def fails_in_a_task_group(number: int) -> int:
    async def fail() -> None:
        if number == BAD:
            raise SystemExit(3)

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
    return number


async def leaves_a_task_that_exits(number: int) -> int:
    async def leave() -> None:
        raise SystemExit(3)

    if number == BAD:
        task = asyncio.create_task(leave())
        await asyncio.sleep(0)
        await task
    return number


@pytest.mark.parametrize(
    "agent",
    [
        awaits_a_task_it_cancelled,
        takes_the_result_of_a_cancelled_future,
        takes_the_result_of_a_cancelled_future_in_a_thread,
        cancels_its_own_task,
        leaves_a_cancel_scope_open,
        fails_in_a_task_group,
        leaves_a_task_that_exits,
    ],
    ids=lambda agent: agent.__name__,
)
def test_a_cancellation_or_an_exit_within_the_agent_fails_one_rollout(run_all: Any, agent: Any) -> None:
    rollouts = run_all(agent)
    assert others_ended_well(rollouts)
    assert rollouts[str(BAD)].status == "failed"
    assert rollouts[str(BAD)].failure.type == "agent_error"


def test_all_of_many_rollouts_may_fail_so(run_all: Any) -> None:
    async def agent(number: int) -> int:
        raise asyncio.CancelledError

    assert {rollout.status for rollout in run_all(agent).values()} == {"failed"}


async def swallows_its_cancellation(number: int) -> int:
    while number == BAD:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue
    return number


def busy(number: int) -> int:
    while number == BAD:
        pass
    return number


def blocked(number: int) -> int:
    if number == BAD:
        threading.Event().wait()
    return number


@pytest.mark.parametrize("agent", [swallows_its_cancellation, busy, blocked], ids=lambda agent: agent.__name__)
def test_an_agent_that_does_not_stop_is_left_behind(run_all: Any, agent: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(bounded_module, "GRACE_SECONDS", 0.05)
    rollouts = run_all(agent, timeout=0.5)
    assert others_ended_well(rollouts)
    assert rollouts[str(BAD)].failure.type == "timeout"
    assert rollouts[str(BAD)].failure.message == "the agent took longer than runner.timeout = 0.5 s"


def test_a_busy_thread_that_nobody_waits_for_ends(run_all: Any) -> None:
    left = threading.Event()

    def agent(number: int) -> int:
        try:
            while number == BAD:
                pass
        finally:
            if number == BAD:
                left.set()
        return number

    run_all(agent, timeout=0.5)
    assert left.wait(30)


async def test_the_runs_own_cancellation_still_ends_it(tmp_path: Any) -> None:
    all_started = asyncio.Barrier(len(TASKS) + 1)
    cleaned_up = []

    async def agent(number: int) -> int:
        try:
            await all_started.wait()
            await asyncio.sleep(60)
        finally:
            cleaned_up.append(number)
        return number

    trainer = Trainer(
        agent,
        TASKS,
        lambda rollout, task: 1.0,
        Once(NoConfig()),
        held_out=TASKS[:1],
        store=f"sqlite:///{tmp_path / 'store.db'}",
        directory=tmp_path / "runs",
        progress=make_progress(quiet=True),
    )
    fit = asyncio.create_task(trainer.fit_async())
    await all_started.wait()
    fit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fit
    assert sorted(cleaned_up) == list(range(len(TASKS)))


def test_an_agent_that_uses_signals_is_told_what_to_do(run_all: Any) -> None:
    import signal

    def agent(number: int) -> int:
        if number == BAD:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return number

    failure = run_all(agent)[str(BAD)].failure
    assert failure.exception == "builtins.ValueError"
    assert "agents run in threads" in failure.message


ODD: list[Any] = [float("nan"), float("inf"), "1", None, 10**400, 10**5000, 1e308, [1.0], object(), 1j]


@pytest.mark.parametrize(
    "value",
    ODD,
    ids=lambda value: (
        f"{type(value).__name__}{len(str(value)[:4000])}" if not isinstance(value, int) else f"int{value.bit_length()}"
    ),
)
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_reward_of_the_agents_own_that_is_no_number_has_no_value(
    run_all: Any, value: Any, asynchronous: bool
) -> None:
    def agent(number: int) -> int:
        agl.reward(value if number == BAD else 0.5, "own")
        return number

    async def agent_async(number: int) -> int:
        return agent(number)

    rollouts = run_all(agent_async if asynchronous else agent)
    own = {task: rollout.rewards[0] for task, rollout in rollouts.items()}
    assert {one.value for task, one in own.items() if task != str(BAD)} == {0.5}
    assert own[str(BAD)].value is None
    assert own[str(BAD)].reason
    assert rollouts[str(BAD)].outcome is None
    assert not rollouts[str(BAD)].is_scorable
    assert not rollouts[str(BAD)].is_trainable
