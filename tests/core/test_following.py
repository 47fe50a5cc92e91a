"""Threads and the calls of executors that begin within a rollout belong to it; nothing of it stays behind in them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.pool import Pool, ThreadPool
from typing import Any

import pytest

from agentlightning.recording import (
    Recorder,
    current,
    current_span,
    following,
    outside,
    recording,
    span,
)
from agentlightning.recording.strays import is_outside

SECONDS = 20
Run = Callable[[Callable[[], Any]], Any]


def in_thread(call: Callable[[], Any]) -> Any:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(call()))
    thread.start()
    thread.join(SECONDS)
    return got[0]


def in_thread_of_a_subclass(call: Callable[[], Any]) -> Any:
    class Worker(threading.Thread):
        def run(self) -> None:
            self.got = call()

    worker = Worker()
    worker.start()
    worker.join(SECONDS)
    return worker.got


def in_timer(call: Callable[[], Any]) -> Any:
    got: queue.Queue[Any] = queue.Queue()
    threading.Timer(0, lambda: got.put(call())).start()
    return got.get(timeout=SECONDS)


def in_executor(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(SECONDS)


def in_executors_map(call: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return next(iter(pool.map(lambda _: call(), [1], timeout=SECONDS)))


def in_loops_executor(call: Callable[[], Any]) -> Any:
    async def run() -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, call)

    return asyncio.run(run())


def in_pool_of_threads(call: Callable[[], Any]) -> Any:
    with ThreadPool(1) as pool:
        return pool.apply_async(func=call).get(SECONDS)


def in_pool_of_threads_map(call: Callable[[], Any]) -> Any:
    with ThreadPool(1) as pool:
        return pool.map_async(lambda _: call(), [1]).get(SECONDS)[0]


def in_pool_of_threads_unordered(call: Callable[[], Any]) -> Any:
    with ThreadPool(1) as pool:
        return pool.imap_unordered(lambda _: call(), [1]).next(SECONDS)


WAYS = [
    in_thread,
    in_thread_of_a_subclass,
    in_timer,
    in_executor,
    in_executors_map,
    in_loops_executor,
    in_pool_of_threads,
    in_pool_of_threads_map,
    in_pool_of_threads_unordered,
]


def recorder(name: str = "r") -> Recorder:
    return Recorder(name, 1, lambda spans: None)


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def run(request: pytest.FixtureRequest) -> Run:
    way: Run = request.param
    return way


def test_it_belongs_to_the_rollout_in_which_it_begins(run: Run) -> None:
    with recording(recorder()) as rollout:
        assert run(current) is rollout


def test_it_is_under_the_span_in_which_it_begins(run: Run) -> None:
    with recording(recorder()), span("solver", agent="solver"):
        assert run(lambda: current_span().agent) == "solver"


def test_it_belongs_to_no_rollout_where_it_begins_in_none(run: Run) -> None:
    with recording(recorder()):
        assert contextvars.Context().run(run, current) is None


def test_what_is_declared_to_be_outside_stays_outside(run: Run) -> None:
    with recording(recorder()):
        assert contextvars.Context().run(_outside, run) is True
    assert run(is_outside.get) is False


def _outside(run: Run) -> Any:
    with outside():
        return run(is_outside.get)


def test_other_context_variables_stay_where_they_are(run: Run) -> None:
    mine = contextvars.ContextVar("mine", default="default")
    with recording(recorder()):
        mine.set("here")
        assert run(mine.get) == "default"


def test_errors_pass_through(run: Run) -> None:
    def fail() -> Any:
        try:
            raise ValueError("no")
        except ValueError as error:
            return error

    with recording(recorder()):
        assert isinstance(run(fail), ValueError)
        with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result(SECONDS)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(params=["begun outside", "begun in the first rollout"])
def submit(request: pytest.FixtureRequest, executor: ThreadPoolExecutor) -> Callable[[Callable[[], Any]], Any]:
    """Calls in one thread of a pool that all rollouts share."""
    if request.param == "begun outside":
        executor.submit(int).result(SECONDS)
    return lambda call: executor.submit(call).result(SECONDS)


def test_a_pools_thread_is_of_each_rollout_in_turn(submit: Run) -> None:
    for name in ("first", "second"):
        with recording(recorder(name)) as rollout:
            assert submit(current) is rollout
    assert submit(current) is None


def test_a_pool_of_threads_is_of_each_rollout_in_turn() -> None:
    pools: list[ThreadPool] = []
    try:
        for name in ("first", "second"):
            with recording(recorder(name)) as rollout:
                if not pools:
                    pools.append(ThreadPool(1))
                assert pools[0].apply_async(current).get(SECONDS) is rollout
        assert pools[0].apply_async(current).get(SECONDS) is None
    finally:
        pools[0].terminate()


def test_calls_of_two_rollouts_at_once_do_not_mix(executor: ThreadPoolExecutor) -> None:
    waiting, both = threading.Event(), []
    with recording(recorder("first")) as first:
        both.append((first, executor.submit(lambda: waiting.wait(SECONDS) and current())))
        with recording(recorder("second")) as second:
            both.append((second, executor.submit(current)))
        waiting.set()
        assert [future.result(SECONDS) for _, future in both] == [rollout for rollout, _ in both]


def test_nothing_of_a_finished_rollout_stays_in_a_pools_threads(submit: Run) -> None:
    rollout = recorder()
    with recording(rollout):
        submit(current)
    rollout.close()
    submit(int)
    gone = weakref.ref(rollout)
    del rollout
    gc.collect()
    assert gone() is None


def test_a_worker_that_takes_from_a_queue_belongs_to_no_rollout() -> None:
    jobs: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()

    def work() -> None:
        call, future = jobs.get(timeout=SECONDS)
        future.set_result(call())

    threading.Thread(target=work, daemon=True).start()
    with recording(recorder()):
        future: Future[Any] = Future()
        jobs.put((current, future))
        assert future.result(SECONDS) is None


def test_a_thread_that_outlives_its_rollout_belongs_to_none() -> None:
    ended, found = threading.Event(), []
    rollout = recorder()
    with recording(rollout):
        thread = threading.Thread(target=lambda: ended.wait(SECONDS) and found.append(current()))
        thread.start()
    rollout.close()
    ended.set()
    thread.join(SECONDS)
    assert found == [None]


def test_a_thread_can_be_started_once_as_ever() -> None:
    with recording(recorder()):
        thread = threading.Thread(target=int)
        thread.start()
        with pytest.raises(RuntimeError):
            thread.start()
        thread.join(SECONDS)
    assert "run" not in vars(thread)


def test_a_pool_of_processes_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is given goes to another process, so it must stay as it is."""
    given: list[Any] = []

    class Processes(Pool):
        def __init__(self) -> None:
            self._state = "TERMINATE"

    following.uninstall()
    monkeypatch.setattr(Pool, "apply_async", lambda _, func, args=(): given.append(func))
    try:
        with recording(recorder()):
            Processes().apply_async(abs, (-1,))
    finally:
        following.uninstall()
    assert given == [abs]


def test_it_is_put_back_exactly() -> None:
    following.uninstall()
    pool: Any = sys.modules["multiprocessing.pool"]
    places = [
        (threading.Thread, "start"),
        (ThreadPoolExecutor, "submit"),
        (pool.ThreadPool, "__init__"),
        *((pool.Pool, name) for name in ("apply_async", "_map_async", "imap", "imap_unordered")),
    ]
    before = [vars(owner)[name] for owner, name in places]
    with recording(recorder()):
        assert all(vars(owner)[name] is not then for (owner, name), then in zip(places, before, strict=True))
    with recording(recorder()):
        following.uninstall()
    assert all(vars(owner)[name] is then for (owner, name), then in zip(places, before, strict=True))
