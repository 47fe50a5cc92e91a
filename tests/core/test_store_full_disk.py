"""A disk that takes no more: everybody is told, nothing recorded is lost, and it goes on when there is room."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from store_records import a_rollout, a_span

from agentlightning.errors import StoreError
from agentlightning.store.sqlite import SQLiteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    opened = SQLiteStore(tmp_path / "store.db")
    yield opened
    await _make_room(opened)
    await opened.close()


def _limit(store: SQLiteStore, pages: int) -> None:
    """Makes SQLite take the disk for full when the file has so many pages."""
    assert store._writer is not None
    store._writer._connection.execute(f"PRAGMA max_page_count = {pages}")


async def _make_room(store: SQLiteStore) -> None:
    """Lifts the limit once the writer has come to rest."""
    with suppress(StoreError):
        await store.flush()
    _limit(store, 1_000_000)


async def _fill(store: SQLiteStore) -> None:
    await store.enqueue([a_rollout("1")])
    store.add_spans([a_span("1", 0)])
    await store.flush()
    _limit(store, 1)
    store.add_spans([a_span("1", index) for index in range(1, 200)])
    with pytest.raises(StoreError, match="the disk is full"):
        await store.flush()


async def test_everybody_who_waits_for_the_failed_batch_is_told(store: SQLiteStore) -> None:
    await _fill(store)
    answers = await asyncio.gather(store.flush(), store.enqueue([a_rollout("2")]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreError, StoreError]


async def test_so_is_everybody_who_waits_behind_it(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.store.writer.BATCH_ROWS", 1)
    released = threading.Event()
    store._submit(lambda db: released.wait(30))
    _limit(store, 1)
    store.add_spans([a_span("1", index) for index in range(200)])
    waiting = asyncio.gather(store.flush(), store.flush(), return_exceptions=True)
    await asyncio.sleep(0)
    released.set()
    assert [type(answer) for answer in await waiting] == [StoreError, StoreError]


async def test_what_was_written_before_is_intact_and_can_be_read(store: SQLiteStore) -> None:
    await _fill(store)
    assert [span.index for span in await store.spans("1", attempt=1)] == [0]
    assert await store.rollout("1") == (await store.rollouts("run"))[0]


async def test_whoever_hands_over_more_is_told_and_it_is_kept(store: SQLiteStore) -> None:
    await _fill(store)
    with pytest.raises(StoreError, match="is kept in memory and tried again"):
        store.add_spans([a_span("1", 200)])
    await _make_room(store)
    await store.flush()
    assert [span.index for span in await store.spans("1", attempt=1)] == list(range(201))


async def test_whoever_offered_it_is_told_and_it_is_kept(store: SQLiteStore) -> None:
    await _fill(store)
    taken = store.offer_spans([a_span("1", 200)])
    assert taken is not None
    with pytest.raises(StoreError, match="the disk is full"):
        await asyncio.wrap_future(taken)
    await _make_room(store)
    await store.flush()
    assert [span.index for span in await store.spans("1", attempt=1)] == list(range(201))


async def test_it_goes_on_when_there_is_room_again(store: SQLiteStore) -> None:
    await _fill(store)
    await _make_room(store)
    await store.flush()
    store.add_spans([a_span("1", 200)])
    [leased] = await store.lease("worker")
    leased.status = "succeeded"
    assert await store.finish(leased)
    assert len(await store.spans("1")) == 201


async def test_what_is_more_than_memory_may_hold_is_refused_at_once(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning.store.writer.WAITING_BYTES", 100_000)
    await _fill(store)
    with pytest.raises(StoreError, match="is too much to keep in memory, and lost"):
        store.add_spans([a_span("1", 200)])


async def test_closing_says_that_something_could_not_be_written(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    await _fill(store)
    with pytest.raises(StoreError, match="the disk is full"):
        await store.close()
    again = SQLiteStore(tmp_path / "store.db")
    assert len(await again.spans("1", attempt=1)) == 1
    await again.close()


LIMITED = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from store_records import a_span
from agentlightning.errors import StoreError
from agentlightning.store.sqlite import SQLiteStore

async def attempt(does):
    try:
        await does
        return "done"
    except StoreError as error:
        return str(error)

async def main():
    said = {}
    store = SQLiteStore(sys.argv[1])
    store.add_spans([a_span("1", 0)])
    said["before"] = await attempt(store.flush())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1] + "-wal").stat().st_size + 100_000, hard))
    store.add_spans([a_span("1", index) for index in range(1, 200)])
    said["full"] = await attempt(store.flush())
    said["read"] = [span.index for span in await store.spans("1")]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    said["after"] = await attempt(store.flush())
    await store.close()
    print(json.dumps(said))

asyncio.run(main())
"""


async def test_a_file_that_the_system_lets_grow_no_more_is_such_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    said = json.loads(process.stdout)
    assert (said["before"], said["after"], said["read"]) == ("done", "done", [0])
    assert "the disk did not take or give the data (full" in said["full"]
    store = SQLiteStore(path)
    assert [span.index for span in await store.spans("1")] == list(range(200))
    await store.close()
