"""The one event loop of a process: what is raised on it reaches its waiter, and leaves it running."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentlightning import threads
from agentlightning.threads import run_on_process_loop


async def loop_of_this_call() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError("no"), asyncio.CancelledError()])
def test_what_a_coroutine_raises_is_raised_and_the_loop_goes_on(error: BaseException) -> None:
    async def fail() -> None:
        raise error

    before = run_on_process_loop(loop_of_this_call())
    with pytest.raises(type(error)):
        run_on_process_loop(fail())
    assert run_on_process_loop(loop_of_this_call()) is before


def test_threads_that_need_it_first_at_the_same_time_are_given_one_loop() -> None:
    threads._make_process_loop.cache_clear()
    together = threading.Barrier(16)

    def ask(_: int) -> asyncio.AbstractEventLoop:
        together.wait()
        return run_on_process_loop(loop_of_this_call())

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1


def test_a_task_left_behind_that_exits_does_not_stop_the_loop() -> None:
    async def leave_a_task() -> asyncio.Task[None]:
        async def leave() -> None:
            raise SystemExit(1)

        return asyncio.get_running_loop().create_task(leave())

    async def collect(task: asyncio.Task[None]) -> BaseException | None:
        await asyncio.wait([task])
        return task.exception()

    task = run_on_process_loop(leave_a_task())
    assert isinstance(run_on_process_loop(collect(task)), SystemExit)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests run in the background and the shell has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_that_another_thread_receives_cancels_the_coroutine() -> None:
    cancelled = threading.Event()

    async def wait_for_the_interrupt() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        run_on_process_loop(wait_for_the_interrupt())
    assert cancelled.is_set()
