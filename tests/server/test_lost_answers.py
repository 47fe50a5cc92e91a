"""An answer is lost, or the server is killed: what was acknowledged is there, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from store_records import FOR_EVER, a_rollout, a_run, a_span

from agentlightning.errors import StoreError
from agentlightning.records import Reward
from agentlightning_server.remote import RemoteStore


async def test_a_lease_whose_answer_is_lost_is_given_once(network: Any, open_store: Callable[..., RemoteStore]) -> None:
    store = open_store()
    await store.enqueue([a_rollout(id) for id in "abc"])
    network.lose("lease")
    first = await store.lease("worker", limit=2, seconds=FOR_EVER)
    second = await store.lease("worker", limit=2, seconds=FOR_EVER)
    assert network.lost == ["lease"]
    assert [[rollout.id for rollout in leased] for leased in (first, second)] == [["a", "b"], ["c"]]
    assert {rollout.attempt for rollout in first + second} == {1}
    await store.close()


async def test_a_finish_whose_answer_is_lost_says_true_again(
    network: Any, open_store: Callable[..., RemoteStore]
) -> None:
    store = open_store()
    await store.enqueue([a_rollout("a")])
    [leased] = await store.lease("worker")
    leased.status = "succeeded"
    network.lose("finish")
    assert await store.finish(leased)
    assert network.lost == ["finish"]
    assert not await store.finish(leased), "asked again by the user, it is another request"
    await store.close()


async def test_what_is_sent_again_late_does_not_undo_what_came_after(
    network: Any, open_store: Callable[..., RemoteStore]
) -> None:
    store, other = open_store(), open_store()
    await store.enqueue([a_rollout("a")])
    [leased] = await store.lease("worker")
    leased.status = "succeeded"
    await store.finish(leased)
    done: list[Any] = []

    def meanwhile() -> None:
        adding = other.add_rewards("a", 1, [Reward(name="liked", value=1.0)])
        with ThreadPoolExecutor() as threads:
            done.append(threads.submit(asyncio.run, adding).result())

    network.lose("add_rewards", meanwhile)
    assert await store.add_rewards("a", 1, [Reward(name="liked", value=0.0)])
    kept = await store.rollout("a")
    assert done == [True]
    assert kept is not None
    assert [reward.value for reward in kept.rewards] == [1.0]
    await store.close()
    await other.close()


async def test_a_server_that_is_killed_loses_nothing_acknowledged_and_its_clients_go_on(process: Any) -> None:
    store = RemoteStore(process.url)
    run = await store.open_run(a_run())
    await store.enqueue([a_rollout("a"), a_rollout("b")])
    leased = await store.lease("worker", limit=2, seconds=FOR_EVER)
    store.add_spans([a_span("a", index) for index in range(3)])
    await store.flush()

    process.kill_and_start_again()

    run.results["model"] = "folder"
    await store.update_run(run)
    assert [span.index for span in await store.spans("a")] == [0, 1, 2]
    for rollout in leased:
        rollout.status = "succeeded"
        assert await store.finish(rollout), "its lease has outlived the server"
    await store.close_run("run", "succeeded")
    kept = await store.run("run")
    assert kept is not None
    assert (kept.status, kept.results) == ("succeeded", {"model": "folder"})
    await store.close()


async def test_what_is_handed_over_while_the_server_is_away_arrives_when_it_is_back(process: Any) -> None:
    store = RemoteStore(process.url)
    await store.enqueue([a_rollout("a")])
    [leased] = await store.lease("worker", seconds=FOR_EVER)
    process.kill()
    store.add_spans([a_span("a")])
    leased.status = "succeeded"
    finishing = asyncio.create_task(store.finish(leased))
    await asyncio.to_thread(process.start)
    assert await finishing
    assert len(await store.spans("a")) == 1
    await store.close()


@pytest.mark.parametrize("ids", [None, ["a", "b"]])
async def test_a_lease_that_was_given_by_a_server_that_is_dead_is_not_lost(
    network: Any, process: Any, ids: list[str] | None
) -> None:
    store = RemoteStore(process.url)
    await store.enqueue([a_rollout(id) for id in "xab"])
    [held] = await store.lease("worker", ids=["x"], seconds=FOR_EVER)
    network.lose("lease", process.kill_and_start_again)
    leased = await store.lease("worker", ids=ids, limit=2, seconds=FOR_EVER)
    assert held.id == "x"
    assert [(rollout.id, rollout.attempt) for rollout in leased] == [("a", 1), ("b", 1)]
    assert await store.lease("worker", limit=9) == []
    await store.close()


async def test_a_finish_that_was_done_by_a_server_that_is_dead_says_true(network: Any, process: Any) -> None:
    store = RemoteStore(process.url)
    await store.enqueue([a_rollout("a")])
    [leased] = await store.lease("worker")
    leased.status, leased.ended_at = "succeeded", 5.0
    network.lose("finish", process.kill_and_start_again)
    assert await store.finish(leased)
    assert network.lost == ["finish"]
    await store.close()


async def test_a_run_stays_its_clients_while_the_server_is_started_again(process: Any) -> None:
    store, other = RemoteStore(process.url), RemoteStore(process.url)
    await store.open_run(a_run())
    process.process.terminate()
    assert process.process.wait(60) == 0
    process.start()
    with pytest.raises(StoreError, match="run run is open in process"):
        await other.open_run(a_run())
    await store.close()
    assert (await other.open_run(a_run())).id == "run"
    await other.close()


async def test_a_server_that_stays_away_is_an_error_that_says_so_and_nothing_is_dropped(process: Any) -> None:
    store = RemoteStore(process.url, patience=0.3)
    process.kill()
    store.add_spans([a_span("a", 0)])
    with pytest.raises(StoreError, match=r"has not answered for 0.3 s \(Connect.*see whether it runs"):
        await store.flush()
    with pytest.raises(StoreError, match="is kept in memory and tried again"):
        store.add_spans([a_span("a", 1)])
    process.start()
    await store.flush()
    store.add_spans([a_span("a", 2)])
    await store.flush()
    assert [span.index for span in await store.spans("a")] == [0, 1, 2]
    await store.close()


async def test_a_lease_that_nobody_waits_for_any_more_is_given_back(
    network: Any, open_store: Callable[..., RemoteStore]
) -> None:
    store, other = open_store(), open_store()
    await store.enqueue([a_rollout("a")])
    loop, waiting = asyncio.get_running_loop(), asyncio.Event()
    network.lose("lease", lambda: loop.call_soon_threadsafe(waiting.set))
    leasing = asyncio.create_task(store.lease("worker", seconds=FOR_EVER))
    await waiting.wait()
    leasing.cancel()
    given_back = False
    while not given_back:  # as soon as the answer has come and gone
        given_back = bool(await other.lease("other", seconds=FOR_EVER))
    await store.close()
    await other.close()


def test_a_server_that_is_not_there_is_said_at_once(process: Any) -> None:
    process.kill()
    with pytest.raises(StoreError, match=r"has not answered for 0\.2 s"):
        RemoteStore(process.url, patience=0.2)
