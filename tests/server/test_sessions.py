"""A client holds what it has opened and leased for as long as it is heard from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from store_records import FOR_EVER, a_rollout, a_run, a_span

from agentlightning.errors import StoreBusyError, StoreError
from agentlightning.records import Rollout
from agentlightning.store.leases import OWNED_SECONDS
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server import wire
from agentlightning_server.errors import RequestError
from agentlightning_server.methods import METHODS
from agentlightning_server.remote import RemoteStore
from agentlightning_server.sessions import MAX_ANSWERS, Sessions

ONE, TWO = "1" * 32, "2" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sessions(tmp_path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    store = SQLiteStore(tmp_path / "store.db")
    yield Sessions(store, seconds=60.0, limit=2, clock=clock)
    await store.close()


async def test_a_client_that_is_silent_too_long_loses_its_runs_and_leases(sessions: Sessions, clock: Clock) -> None:
    one = sessions.heard(ONE, "box:7")
    await one.store.open_run(a_run())
    await one.store.enqueue([a_rollout("a")])
    await one.store.lease("worker", seconds=FOR_EVER)
    clock.now = 61.0
    two = sessions.heard(TWO, "other:8")
    with pytest.raises(StoreBusyError, match="run run is open in process 7 on box"):
        await two.store.open_run(a_run())
    await sessions.look_after()
    assert len(sessions) == 1
    await two.store.open_run(a_run())
    assert [rollout.attempt for rollout in await two.store.lease("another")] == [2]


async def test_a_client_that_is_heard_from_keeps_what_it_holds(sessions: Sessions, clock: Clock) -> None:
    one = sessions.heard(ONE, "box:7")
    one.writes = True
    await one.store.open_run(a_run())
    await one.store.heartbeat("", seconds=0)
    clock.now = 50.0
    sessions.heard(ONE, "box:7")
    clock.now = 100.0
    await sessions.look_after()
    with pytest.raises(StoreBusyError, match="if it is dead, try again in"):
        await sessions.heard(TWO, "other:8").store.open_run(a_run())


async def test_a_run_is_renewed_before_it_would_be_free_however_long_a_session_lasts(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    assert Sessions(store, seconds=86400.0, limit=2).interval < OWNED_SECONDS / 2
    assert Sessions(store, seconds=1.0, limit=2).interval < 0.5
    await store.close()


async def test_a_client_whose_request_is_being_answered_is_not_silent(sessions: Sessions, clock: Clock) -> None:
    sessions.heard(ONE, "box:7").active = 1
    clock.now = 1000.0
    await sessions.look_after()
    assert len(sessions) == 1


async def test_only_so_many_sessions_are_open_at_once(sessions: Sessions) -> None:
    for token in (ONE, TWO, ONE):
        sessions.heard(token, "box:7")
    with pytest.raises(RequestError, match="2 sessions are open") as refused:
        sessions.heard("3" * 32, "box:7")
    assert refused.value.status == 503
    await sessions.end(ONE, "box:7")
    sessions.heard("3" * 32, "box:7")


@pytest.mark.parametrize("token", ["", "1", "g" * 32, "1" * 33, "1" * 31 + "\n"])
def test_a_token_that_nobody_has_drawn_is_refused(sessions: Sessions, token: str) -> None:
    with pytest.raises(RequestError) as refused:
        sessions.heard(token, "box:7")
    assert refused.value.status == 400


async def test_a_write_is_done_once_however_often_it_is_asked_for(sessions: Sessions) -> None:
    session = sessions.heard(ONE, "box:7")
    done: list[int] = []

    async def work() -> int:
        done.append(len(done))
        return done[-1]

    assert await asyncio.gather(*(session.once(5, 1, work) for _ in range(3))) == [0, 0, 0]
    assert await session.once(6, 6, work) == 1
    with pytest.raises(RequestError, match="answered before") as late:
        await session.once(5, 5, work)
    assert late.value.status == 409
    assert done == [0, 1]


async def test_answers_that_nobody_says_to_have_got_are_bounded(sessions: Sessions) -> None:
    session = sessions.heard(ONE, "box:7")

    async def work() -> None:
        return None

    for number in range(1, MAX_ANSWERS + 1):
        await session.once(number, 1, work)
    with pytest.raises(RequestError) as refused:
        await session.once(MAX_ANSWERS + 1, 1, work)
    assert refused.value.status == 503
    await session.once(MAX_ANSWERS + 1, 2, work)


async def test_a_write_goes_on_when_its_client_leaves_in_the_middle(sessions: Sessions) -> None:
    session = sessions.heard(ONE, "box:7")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    left = asyncio.create_task(session.once(1, 1, work))
    await begun.wait()
    left.cancel()
    await asyncio.wait([left])
    go_on.set()
    assert await session.once(1, 1, work) == "done"


async def test_a_client_that_leaves_while_it_sends_leaves_nothing_behind(
    server: Any, open_store: Callable[..., RemoteStore]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    head = (
        f"POST /v1/store/add_spans HTTP/1.1\r\nhost: 127.0.0.1\r\n{wire.SESSION}: {ONE}\r\ncontent-length: 9999\r\n\r\n"
    )
    writer.write(head.encode() + b"half")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    del reader
    store = open_store()
    assert await store.runs() == []
    store.add_spans([a_span("a")])
    await store.close()


async def test_a_store_that_is_closed_has_said_goodbye(open_store: Callable[..., RemoteStore]) -> None:
    one, two = open_store(), open_store()
    await one.open_run(a_run())
    with pytest.raises(StoreBusyError, match=r"run run is open in process \d+ on"):
        await two.open_run(a_run())
    await one.close()
    assert (await two.open_run(a_run())).status == "running"
    await two.close()


async def test_a_store_that_is_closed_while_somebody_waits_says_so(open_store: Callable[..., RemoteStore]) -> None:
    store, other = open_store(), open_store()
    await store.enqueue([a_rollout("a")])
    waiting = [asyncio.create_task(store.wait(["a"])) for _ in range(3)]
    await other.lease("worker", seconds=FOR_EVER)
    await store.close()
    for ended in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(ended, StoreError)
        assert "is closed" in str(ended)
    await other.close()


async def test_clients_of_one_server_share_its_work_out(open_store: Callable[..., RemoteStore]) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].enqueue([a_rollout(str(number)) for number in range(40)])

    async def work(store: RemoteStore) -> list[Rollout]:
        done = []
        while leased := await store.lease("worker", limit=3, seconds=FOR_EVER):
            for rollout in leased:
                rollout.status = "succeeded"
                assert await store.finish(rollout)
                done.append(rollout)
        return done

    done = [rollout for part in await asyncio.gather(*map(work, stores)) for rollout in part]
    assert sorted(int(rollout.id) for rollout in done) == list(range(40))
    assert {rollout.attempt for rollout in done} == {1}
    await asyncio.gather(*(store.close() for store in stores))


def test_a_session_is_asked_for_where_something_is_written(server: Any) -> None:
    body = b"\x81\xa6run_id\xa1r"
    answer = httpx.post(f"{server.url}/v1/store/flush", content=b"\x80", headers={"content-type": wire.CONTENT_TYPE})
    assert answer.status_code == 400
    assert wire.SESSION in answer.json()["message"]
    read = httpx.post(f"{server.url}/v1/store/metrics", content=body, headers={"content-type": wire.CONTENT_TYPE})
    assert (read.status_code, read.content) == (200, b"\x90")
    assert METHODS["metrics"].access == "read"
