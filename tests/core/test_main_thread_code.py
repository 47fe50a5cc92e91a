"""Agents written for a main thread, or to be iterated over: event loops of their own, generators."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentlightning.function_adapter import FunctionAdapter
from agentlightning.plugins import Plugins
from agentlightning.records import Reward, Rollout, Task
from agentlightning.scoring import Scoring

pytestmark = pytest.mark.timeout(60)


async def run(agent: Any, input: Any = 21) -> Any:
    return await FunctionAdapter().run(agent, input)


async def double_later(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


def gets_the_event_loop(value: int) -> int:
    return asyncio.get_event_loop().run_until_complete(double_later(value))


def gets_it_again_and_again(value: int) -> int:
    gets_the_event_loop(value)
    loop = asyncio.get_event_loop()
    assert not loop.is_running()
    assert loop is asyncio.get_event_loop()
    return loop.run_until_complete(asyncio.gather(double_later(value), double_later(value)))[0]


def makes_a_loop(value: int) -> int:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(double_later(value))
    finally:
        loop.close()


def runs_asyncio(value: int) -> int:
    asyncio.run(double_later(value))
    return asyncio.run(double_later(value))


def runs_anyio(value: int) -> int:
    return anyio.run(double_later, value)


def makes_a_task_and_a_future(value: int) -> int:
    loop = asyncio.get_event_loop()
    future = loop.create_future()
    loop.call_later(0, future.set_result, value)
    task = asyncio.ensure_future(double_later(value))
    assert loop.run_until_complete(future) == value
    return loop.run_until_complete(task)


def runs_it_in_an_executor(value: int) -> int:
    loop = asyncio.get_event_loop()
    return loop.run_until_complete(loop.run_in_executor(None, gets_a_loop_or_none, value))


def gets_a_loop_or_none(value: int) -> int:
    return 2 * value


async def score(reward: Any) -> Reward:
    rollout = Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output="2")
    rewards, _ = await Scoring([reward], Plugins([])).score(rollout, Task(id="t", input="1 + 1"), [])
    return rewards[0]


WITH_LOOPS = [
    gets_the_event_loop,
    gets_it_again_and_again,
    makes_a_loop,
    runs_asyncio,
    runs_anyio,
    makes_a_task_and_a_future,
    runs_it_in_an_executor,
]


@pytest.mark.parametrize("agent", WITH_LOOPS, ids=lambda agent: agent.__name__)
async def test_a_sync_agent_may_run_an_event_loop(agent: Any) -> None:
    assert await run(agent) == 42


@pytest.mark.parametrize("agent", WITH_LOOPS, ids=lambda agent: agent.__name__)
async def test_so_may_many_at_once(agent: Any) -> None:
    assert await asyncio.gather(*(run(agent, number) for number in range(32))) == list(range(0, 64, 2))


@pytest.mark.parametrize("agent", WITH_LOOPS, ids=lambda agent: agent.__name__)
async def test_so_may_a_sync_reward(agent: Any) -> None:
    assert (await score(lambda rollout, task: agent(21))).value == 42


async def test_so_may_a_sync_step_of_an_asynchronous_agent() -> None:
    from agentlightning.threads import use_daemon_threads

    use_daemon_threads(asyncio.get_running_loop())

    async def agent(value: int) -> int:
        return await asyncio.to_thread(gets_the_event_loop, value)

    assert await run(agent) == 42


async def test_the_loop_of_a_thread_is_closed_and_its_tasks_are_cancelled() -> None:
    kept: list[Any] = []

    def agent(value: int) -> int:
        loop = asyncio.get_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        kept.append(asyncio.get_event_loop())
        kept.append(kept[0].create_task(asyncio.sleep(60)))
        return value

    await run(agent)
    loop, task = kept
    assert loop.is_closed()
    assert task.cancelled()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
async def test_a_thread_without_a_loop_opens_no_files() -> None:
    together = threading.Barrier(33)

    def agent(_: int) -> int:
        together.wait()
        together.wait()
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    running = [asyncio.create_task(run(agent)) for _ in range(32)]
    await asyncio.to_thread(together.wait)
    during = len(os.listdir("/proc/self/fd"))
    await asyncio.to_thread(together.wait)
    await asyncio.gather(*running)
    assert during <= before + 1  # the listing itself


def yields(value: int) -> Iterator[str]:
    yield "thinking"
    yield f"answer {value}"


def yields_and_returns(value: int) -> Iterator[str]:
    yield "thinking"
    return f"answer {value}"


async def yields_later(value: int) -> AsyncIterator[str]:
    yield "thinking"
    await asyncio.sleep(0)
    yield f"answer {value}"


def gives_a_generator(value: int) -> Iterator[str]:
    return yields(value)


async def gives_an_async_generator(value: int) -> AsyncIterator[str]:
    return yields_later(value)


async def gives_a_generator_later(value: int) -> Iterator[str]:
    return yields(value)


class Streaming:
    async def __call__(self, value: int) -> AsyncIterator[str]:
        yield "thinking"
        yield f"answer {value}"


@pytest.mark.parametrize(
    "agent",
    [
        *(yields, yields_and_returns, yields_later, gives_a_generator, gives_an_async_generator),
        *(gives_a_generator_later, Streaming(), lambda value: map(str, ["thinking", f"answer {value}"])),
    ],
)
async def test_a_generator_is_run_to_its_end_and_its_last_value_is_the_output(agent: Any) -> None:
    assert await run(agent) == "answer 21"


async def test_a_generator_of_nothing_has_no_output() -> None:
    assert await run(lambda _: iter(())) is None


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit(1)])
async def test_what_a_generator_raises_is_raised(error: BaseException) -> None:
    def fails(value: int) -> Iterator[str]:
        yield "thinking"
        raise error

    async def fails_later(value: int) -> AsyncIterator[str]:
        yield "thinking"
        raise error

    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    for agent in (fails, fails_later):
        with pytest.raises(expected):
            await run(agent)


async def test_a_generator_that_is_given_up_is_closed() -> None:
    begun, closed = threading.Event(), threading.Event()

    async def endless(value: int) -> AsyncIterator[int]:
        try:
            while True:
                begun.set()
                yield value
                await asyncio.sleep(0)
        finally:
            closed.set()

    def endless_sync(value: int) -> Iterator[int]:
        try:
            while True:
                begun.set()
                yield value
        finally:
            closed.set()

    for agent in (endless, endless_sync):
        begun.clear()
        closed.clear()
        running = asyncio.create_task(run(agent))
        assert await asyncio.to_thread(begun.wait, 30)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(closed.wait, 30)
