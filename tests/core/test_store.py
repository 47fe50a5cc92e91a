"""The embedded store's own: its writer, its file, and calls that are given up (what every store does is in
tests/store_contract.py)."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from store_records import FOR_EVER, a_rollout, a_run, a_span

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.store.owner import Owner
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


async def test_what_is_offered_is_taken_and_durable_or_not_taken_at_all(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning.store.writer.WAITING_BYTES", 1)
    hold = Hold(store)
    hold.entered.wait(30)
    taken = store.offer_spans([a_span("1", 0)])
    assert taken is not None
    assert store.offer_spans([a_span("1", 1)]) is None
    hold.release()
    await asyncio.wrap_future(taken)
    assert [span.index for span in await store.spans("1")] == [0]


async def test_a_rollout_stands_as_it_was_last_written(store: SQLiteStore) -> None:
    assert store.standing("1") is None
    await store.enqueue([a_rollout("1")])
    assert store.standing("1") == ("queued", 0)
    await store.lease("worker", seconds=FOR_EVER)
    assert store.standing("1") == ("running", 1)


async def test_a_view_for_another_owner_gives_up_its_own_and_leaves_the_store_open(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1"), a_rollout("2")])
    await store.open_run(a_run())
    view = store.owned_by(Owner(token="t", host="elsewhere", machine="elsewhere", pid=7, started=None))
    await store.lease("worker", ids=["1"], seconds=FOR_EVER)
    assert [rollout.id for rollout in await view.lease("worker", ids=["2"], seconds=FOR_EVER)] == ["2"]
    assert [rollout.id for rollout in await view.leased("worker")] == ["2"]
    with pytest.raises(StoreBusyError, match="is open in process"):
        await view.open_run(a_run())
    await view.close()
    await view.close()
    with pytest.raises(StoreError, match="is closed"):
        view.add_spans([a_span("1")])
    assert [rollout.id for rollout in await store.lease("another", limit=9)] == ["2"]
    assert [rollout.id for rollout in await store.leased("worker")] == ["1"]


async def test_who_is_spoken_for_holds_a_run_until_its_time_is_over(tmp_path: Path, store: SQLiteStore) -> None:
    owner = Owner(token="t", host="elsewhere", machine="elsewhere", pid=7, started=None)
    await store.owned_by(owner).open_run(a_run())
    again = SQLiteStore(tmp_path / "store.db")
    with pytest.raises(StoreBusyError, match="process 7 on elsewhere: if it is dead, try again in"):
        await again.open_run(a_run())
    same = again.owned_by(owner)
    await same.update_run(a_run(results={"model": "folder"}))
    await same.heartbeat("nobody", seconds=0)
    assert (await again.open_run(a_run())).results == {"model": "folder"}
    await again.close()


async def test_a_closed_store_is_one_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    store.add_spans([a_span("1")])
    await store.flush()
    assert len(await store.spans("1")) == 1
    await store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


async def test_a_store_opened_for_reading_reads_and_does_not_write(store: SQLiteStore, tmp_path: Path) -> None:
    await store.open_run(a_run())
    reader = SQLiteStore(tmp_path / "store.db", read_only=True)
    assert await reader.runs() == [a_run()]
    with pytest.raises(StoreError, match="reading only"):
        await reader.open_run(a_run("another"))
    with pytest.raises(StoreError, match="reading only"):
        reader.add_spans([a_span("1")])
    await reader.close()
