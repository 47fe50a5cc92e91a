"""What the embedded store keeps, and how it hands out work."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from store_records import a_rollout, a_run, a_span

from agentlightning.errors import StoreError
from agentlightning.records import Failure, ModelChoice, Policy, Prompt, Reward, Task
from agentlightning.store import Checkpoint, Metric
from agentlightning.store.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "store.db")
    yield opened
    await opened.close()


class Hold:
    """Keeps the writer inside a transaction until released."""

    def __init__(self, store: SQLiteStore) -> None:
        self.entered = threading.Event()
        self._released = threading.Event()
        self.done: Future[bool] = store._submit(self._work)

    def _work(self, db: object) -> bool:
        self.entered.set()
        return self._released.wait(30)

    def release(self) -> None:
        self._released.set()


# Runs


async def test_a_run_is_kept_as_it_was_opened(store: SQLiteStore) -> None:
    await store.open_run(a_run("b", config={"lr": 0.1}, seed=3, created_at=12.0))
    await store.open_run(a_run("a"))
    assert [run.id for run in await store.runs()] == ["b", "a"]
    assert await store.run("b") == a_run("b", config={"lr": 0.1}, seed=3, created_at=12.0)
    assert await store.run("c") is None


async def test_a_run_that_is_opened_again_is_as_it_was_but_running(store: SQLiteStore) -> None:
    await store.open_run(a_run(seed=3))
    await store.close_run("run", "failed", "out of memory")
    closed = await store.run("run")
    assert closed is not None
    assert (closed.status, closed.message) == ("failed", "out of memory")
    assert closed.ended_at is not None
    assert await store.open_run(a_run(seed=4)) == a_run(seed=3)
    assert await store.run("run") == a_run(seed=3)


async def test_opening_a_run_twice_in_one_store_keeps_its_leases(store: SQLiteStore) -> None:
    await store.open_run(a_run())
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    await store.open_run(a_run())
    leased.status = "succeeded"
    assert await store.finish(leased)


async def test_closing_a_run_that_is_not_there_is_an_error(store: SQLiteStore) -> None:
    with pytest.raises(StoreError, match="no run nowhere"):
        await store.close_run("nowhere", "failed")


# Tasks


async def test_tasks_are_kept_by_run_and_id(store: SQLiteStore) -> None:
    tasks = [Task(id=id, input={"question": id}, expected=1) for id in ("b", "a")]
    await store.add_tasks("run", tasks)
    await store.add_tasks("run", [Task(id="a", input="another")])
    await store.add_tasks("other", [Task(id="c", input=0)])
    assert list((await store.tasks("run")).items()) == [("b", tasks[0]), ("a", Task(id="a", input="another"))]
    assert list(await store.tasks("run", ids=["a", "c"])) == ["a"]


# Rollouts and leases


async def test_enqueue_returns_rollouts_as_they_stand_in_the_order_given(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1"), a_rollout("2")])
    [leased] = await store.lease("worker", ids=["2"])
    leased.status, leased.output = "succeeded", {"answer": 4}
    leased.rewards = [Reward(name="exact", value=1.0, at=5.0)]
    await store.finish(leased)
    known = await store.enqueue([a_rollout("3"), a_rollout("2"), a_rollout("1")])
    assert [(rollout.id, rollout.status, rollout.attempt) for rollout in known] == [
        ("3", "queued", 0),
        ("2", "succeeded", 1),
        ("1", "queued", 0),
    ]
    assert known[1] == leased
    assert [rollout.id for rollout in await store.rollouts("run")] == ["1", "2", "3"]


async def test_rollouts_are_found_by_purpose_step_and_id(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1"), a_rollout("2", step=10), a_rollout("3"), a_rollout("4", run_id="other")])
    assert [rollout.id for rollout in await store.rollouts("run", purpose="train", step=1)] == ["1", "3"]
    assert await store.rollouts("run", purpose="evaluate") == []
    assert [rollout.id for rollout in await store.rollouts("run", ids=["4", "3", "2"])] == ["2", "3"]
    assert await store.rollout("5") is None


async def test_lease_hands_out_queued_rollouts_in_order_up_to_the_limit(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout(id) for id in "dcba"])
    first = await store.lease("one", limit=3)
    second = await store.lease("two", limit=3)
    assert [[rollout.id for rollout in leased] for leased in (first, second)] == [["d", "c", "b"], ["a"]]
    assert {(rollout.status, rollout.attempt) for rollout in first + second} == {("running", 1)}


async def test_lease_by_id_hands_out_only_those_that_are_free(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1"), a_rollout("2")])
    await store.lease("one", ids=["1"])
    assert [rollout.id for rollout in await store.lease("two", ids=["2", "1", "2", "3"], limit=9)] == ["2"]


async def test_a_lease_that_ended_is_handed_out_again_and_the_old_attempt_is_fenced_off(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [slow] = await store.lease("slow", seconds=0)
    [fast] = await store.lease("fast")
    slow.status, slow.output = "succeeded", "slow"
    assert not await store.finish(slow)
    fast.status, fast.output = "succeeded", "fast"
    assert await store.finish(fast)
    kept = await store.rollout("1")
    assert kept is not None
    assert (kept.output, kept.attempt) == ("fast", 2)


async def test_a_heartbeat_renews_the_leases_of_its_worker_only(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1"), a_rollout("2")])
    await store.lease("one", ids=["1"], seconds=0)
    await store.lease("two", ids=["2"], seconds=0)
    await store.heartbeat("one")
    assert [rollout.id for rollout in await store.lease("three", limit=9)] == ["2"]


async def test_an_attempt_is_finished_once(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    leased.status = "failed"
    leased.failure = Failure(type="timeout", message="too slow")
    assert await store.finish(leased)
    leased.status = "succeeded"
    assert not await store.finish(leased)
    kept = await store.rollout("1")
    assert kept is not None
    assert (kept.status, kept.failure) == ("failed", leased.failure)
    assert await store.lease("worker") == []


async def test_an_attempt_finished_as_queued_is_handed_out_again(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    leased.status = "queued"
    leased.failed_attempts = [Failure(type="rate_limited", message="429", fault="infrastructure")]
    assert await store.finish(leased)
    [again] = await store.lease("worker")
    assert (again.attempt, again.failed_attempts) == (2, leased.failed_attempts)


async def test_a_rollout_cannot_be_finished_as_running(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    with pytest.raises(StoreError, match=r"rollout 1 .* 'running'"):
        await store.finish(leased)


async def test_closing_a_run_queues_what_was_leased_of_it(store: SQLiteStore) -> None:
    await store.open_run(a_run())
    await store.enqueue([a_rollout("1"), a_rollout("2", run_id="other")])
    await store.lease("worker", limit=2)
    await store.close_run("run", "cancelled")
    assert [rollout.id for rollout in await store.lease("worker", limit=2)] == ["1"]


async def test_a_lease_cancelled_before_it_was_given_is_not_given(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    hold = Hold(store)
    hold.entered.wait(30)
    waiting = asyncio.create_task(store.lease("worker"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    hold.release()
    assert [rollout.attempt for rollout in await store.lease("another")] == [1]


async def test_a_lease_cancelled_while_it_is_given_is_given_back(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    first = Hold(store)
    first.entered.wait(30)
    second = Hold(store)
    waiting = asyncio.create_task(store.lease("worker"))
    await asyncio.sleep(0)
    first.release()
    second.entered.wait(30)
    waiting.cancel()
    await asyncio.wait([waiting])
    second.release()
    assert [rollout.attempt for rollout in await store.lease("another")] == [2]


async def test_workers_of_several_loops_and_threads_share_the_work_out(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout(str(number)) for number in range(100)])

    async def work(worker: str) -> list[str]:
        done = []
        while leased := await store.lease(worker, limit=3):
            for rollout in leased:
                rollout.status = "succeeded"
                assert await store.finish(rollout)
                done.append(rollout.id)
        return done

    threads = [asyncio.to_thread(asyncio.run, work(str(number))) for number in range(4)]
    done = [id for part in await asyncio.gather(*threads) for id in part]
    assert sorted(done, key=int) == [str(number) for number in range(100)]


async def test_an_output_that_no_format_holds_is_kept_in_a_plain_form_or_as_text(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    leased.status, leased.output = "succeeded", {"power": 10**30, "text": "\ud800", "set": {1}, "kind": object}
    assert await store.finish(leased)
    kept = await store.rollout("1")
    assert kept is not None
    assert kept.output == {"power": 10**30, "text": "?", "set": [1], "kind": "<class 'object'>"}


# Spans and metrics


async def test_a_span_comes_back_with_its_tokens(store: SQLiteStore) -> None:
    written = a_span("1")
    store.add_spans([written])
    await store.flush()
    [read] = await store.spans("1")
    assert written.generation is not None
    assert read.generation is not None
    for name in ("prompt_ids", "response_ids", "logprobs"):
        before, after = getattr(written.generation, name), getattr(read.generation, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
        setattr(written.generation, name, None)
        setattr(read.generation, name, None)
    assert read == written


async def test_finish_makes_the_spans_handed_over_before_durable(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    [leased] = await store.lease("worker")
    store.add_spans([a_span("1", index) for index in (2, 0, 1)])
    leased.status = "succeeded"
    await store.finish(leased)
    assert [span.index for span in await store.spans("1")] == [0, 1, 2]


async def test_a_span_written_twice_is_there_once_as_written_last(store: SQLiteStore) -> None:
    first, second = a_span("1"), a_span("1")
    second.name = "again"
    store.add_spans([first, a_span("1", 1), second])
    await store.flush()
    store.add_spans([a_span("1", 1)])
    await store.flush()
    assert [(span.index, span.name) for span in await store.spans("1")] == [(0, "again"), (1, "chat")]


async def test_a_span_is_kept_as_it_was_when_handed_over(store: SQLiteStore) -> None:
    span = a_span("1")
    store.add_spans([span])
    span.name = "changed later"
    await store.flush()
    assert [span.name for span in await store.spans("1")] == ["chat"]


async def test_spans_are_those_of_the_last_attempt_unless_another_is_asked_for(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    for attempt in (1, 2):
        await store.lease("worker", seconds=0)
        store.add_spans([a_span("1", attempt=attempt), a_span("unknown", attempt=attempt)])
    await store.flush()
    assert [span.attempt for span in await store.spans("1")] == [2]
    assert [span.attempt for span in await store.spans("unknown")] == [2]
    assert [span.attempt for span in await store.spans("1", attempt=1)] == [1]
    await store.lease("worker")
    assert await store.spans("1") == []


async def test_spans_come_from_any_thread(store: SQLiteStore) -> None:
    def write(thread: int) -> None:
        for index in range(50):
            store.add_spans([a_span(str(thread), index, tokens=1)])

    await asyncio.gather(*(asyncio.to_thread(write, thread) for thread in range(8)))
    await store.flush()
    counts = [len(await store.spans(str(thread))) for thread in range(8)]
    assert counts == [50] * 8


async def test_what_came_while_the_writer_was_busy_is_one_transaction(store: SQLiteStore) -> None:
    assert store._writer is not None
    hold = Hold(store)
    hold.entered.wait(30)
    statements: list[str] = []
    store._writer._connection.set_trace_callback(statements.append)
    writes = [asyncio.create_task(store.enqueue([a_rollout(str(number))])) for number in range(50)]
    await asyncio.sleep(0)
    store.add_spans([a_span("1", index) for index in range(50)])
    hold.release()
    await asyncio.gather(*writes, store.flush())
    store._writer._connection.set_trace_callback(None)
    assert statements.count("COMMIT") <= 3, "the held one, the rest, and perhaps the flush"


async def test_a_write_that_fails_leaves_those_of_its_transaction_alone(store: SQLiteStore) -> None:
    def broken(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM rollouts")
        raise ValueError("broken")

    hold = Hold(store)
    hold.entered.wait(30)
    writes = [
        asyncio.create_task(store.enqueue([a_rollout("1")])),
        asyncio.create_task(store._write(broken)),
        asyncio.create_task(store.enqueue([a_rollout("2")])),
    ]
    await asyncio.sleep(0)
    hold.release()
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(answers[1], ValueError)
    assert [rollout.id for rollout in await store.rollouts("run")] == ["1", "2"]


async def test_whoever_hands_over_more_than_may_wait_waits_for_the_disk(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning.store.writer.WAITING_BYTES", 10_000)
    hold = Hold(store)
    hold.entered.wait(30)
    store.add_spans([a_span("1", 0)])
    late = threading.Thread(target=lambda: [store.add_spans([a_span("1", index)]) for index in (1, 2)])
    late.start()
    late.join(0.1)
    assert late.is_alive()
    hold.release()
    await asyncio.to_thread(late.join)
    await store.flush()
    assert len(await store.spans("1")) == 3


async def test_the_last_value_of_a_metric_stays(store: SQLiteStore) -> None:
    store.add_metrics([Metric(run_id="run", step=2, name="b", value=1.0, at=1.0)])
    store.add_metrics(
        [
            Metric(run_id="run", step=2, name="b", value=2.0, at=2.0),
            Metric(run_id="run", step=2, name="a", value=math.inf, at=2.0),
            Metric(run_id="run", step=1, name="b", value=math.nan, at=2.0),
            Metric(run_id="other", step=1, name="b", value=0.0, at=2.0),
        ]
    )
    await store.flush()
    metrics = await store.metrics("run")
    assert [(metric.step, metric.name, metric.at) for metric in metrics] == [
        (1, "b", 2.0),
        (2, "a", 2.0),
        (2, "b", 2.0),
    ]
    np.testing.assert_equal([metric.value for metric in metrics], [math.nan, math.inf, 2.0])


# Resources and checkpoints


async def test_every_version_of_a_resource_is_kept_in_order(store: SQLiteStore) -> None:
    versions = [
        Policy(name="policy", model="m", base_url="http://localhost", agents=("solver",)),
        Prompt(name="prompt", template="Answer {question}"),
        Policy(name="policy", version=1, model="m", base_url="http://localhost"),
        ModelChoice(name="model", model="small", input_price=0.5),
    ]
    for resource in [*versions, versions[0]]:
        await store.put_resource("run", resource)
    assert await store.resources("run") == versions
    assert [await store.resource("run", one.digest) for one in versions] == versions
    assert await store.resource("other", versions[0].digest) is None
    assert await store.resources("other") == []


async def test_the_checkpoint_of_the_highest_step_is_the_last(store: SQLiteStore) -> None:
    assert await store.last_checkpoint("run") is None
    for step in (1, 10, 9):
        await store.put_checkpoint(Checkpoint(run_id="run", step=step, state={"rng": [step]}, path=f"step-{step}"))
    assert await store.last_checkpoint("run") == Checkpoint(run_id="run", step=10, state={"rng": [10]}, path="step-10")


# Closing


async def test_close_writes_what_waits_and_may_be_called_twice(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.add_spans([a_span("1")])
    await store.close()
    await store.close()
    again = SQLiteStore(tmp_path / "store.db", read_only=True)
    assert len(await again.spans("1")) == 1
    await again.close()


async def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.add_spans([a_span("1")])
    await store.flush()
    assert len(await store.spans("1")) == 1
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.add_spans([a_span("1")])
    with pytest.raises(StoreError, match="is closed"):
        await store.flush()
    with pytest.raises(StoreError, match="is closed"):
        await store.runs()


async def test_a_store_opened_for_reading_reads_and_does_not_write(store: SQLiteStore, tmp_path: Path) -> None:
    await store.open_run(a_run())
    reader = SQLiteStore(tmp_path / "store.db", read_only=True)
    assert await reader.runs() == [a_run()]
    with pytest.raises(StoreError, match="reading only"):
        await reader.open_run(a_run("another"))
    with pytest.raises(StoreError, match="reading only"):
        reader.add_spans([a_span("1")])
    await reader.close()
