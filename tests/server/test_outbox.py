"""What is handed over leaves in batches, in order, and never more of it waits than there is room for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from store_records import a_rollout, a_span

from agentlightning.errors import StoreError
from agentlightning.records import Reward, Task
from agentlightning.store import Metric
from agentlightning_server import outbox, remote
from agentlightning_server.connection import Connection
from agentlightning_server.remote import RemoteStore


class Gate:
    """Keeps batches from being sent until it is opened, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        self.open = threading.Event()
        real = Connection.call

        async def call(connection: Connection, method: Any, body: bytes) -> bytes:
            await asyncio.to_thread(self.open.wait, 60)
            self.sent.append(method.name)
            return await real(connection, method, body)

        monkeypatch.setattr(Connection, "call", call)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


async def test_what_comes_while_a_batch_is_sent_is_the_next_batch(
    gate: Gate, open_store: Callable[..., RemoteStore]
) -> None:
    store = open_store()
    for index in range(100):
        store.add_spans([a_span("a", index, tokens=1)])
    store.add_metrics([Metric(run_id="run", step=1, name="loss", value=1.0)])
    store.add_spans([a_span("a", 100, tokens=1)])
    gate.open.set()
    await store.flush()
    assert gate.sent[-3:] == ["add_spans", "add_metrics", "add_spans"]
    assert len(gate.sent) <= 4, "perhaps the first span alone"
    assert [span.index for span in await store.spans("a")] == list(range(101))
    await store.close()


async def test_whoever_hands_over_more_than_may_wait_waits_for_the_server(
    gate: Gate, open_store: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "WAITING_BYTES", 6_000)
    store = open_store()
    store.add_spans([a_span("a", 0)])
    late = threading.Thread(target=lambda: [store.add_spans([a_span("a", index)]) for index in (1, 2)])
    late.start()
    late.join(0.1)
    assert late.is_alive()
    gate.open.set()
    await asyncio.to_thread(late.join)
    await store.flush()
    assert len(await store.spans("a")) == 3
    await store.close()


async def test_many_records_are_sent_in_chunks_and_come_back_in_pages(
    open_store: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(remote, "PAGE", 7)
    store = open_store()
    rollouts = [a_rollout(str(number)) for number in range(50)]
    assert [rollout.id for rollout in await store.enqueue(rollouts)] == [rollout.id for rollout in rollouts]
    assert [rollout.id for rollout in await store.rollouts("run")] == [rollout.id for rollout in rollouts]
    assert [rollout.id for rollout in await store.rollouts("run", after="10", limit=9)] == [*map(str, range(11, 20))]
    await store.add_tasks("run", [Task(id=str(number), input="x" * 100) for number in range(50)])
    assert list(await store.tasks("run")) == [str(number) for number in range(50)]
    assert await store.enqueue([]) == []
    await store.close()


async def test_what_no_server_takes_is_refused_where_it_is_handed_over(
    open_store: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MAX_BODY_BYTES", 5000)
    store = open_store()
    span = a_span("a")
    span.attributes = {"page": "x" * 5000}
    with pytest.raises(StoreError, match="bytes at once are more than a server takes"):
        store.add_spans([span])
    with pytest.raises(StoreError, match="bytes at once are more than a server takes"):
        await store.add_rewards("a", 1, [Reward(name="r", value=1.0, reason="x" * 5000)])
    store.add_spans([a_span("a", 1, tokens=1)])
    await store.close()
