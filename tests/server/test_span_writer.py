"""How the gateway hands spans to its store."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path

import pytest
from store_records import a_span

from agentlightning.errors import StoreError
from agentlightning.records import Span
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server.gateway.recorders import SpanWriter


class SlowStore:
    """Takes spans when it is told to."""

    def __init__(self) -> None:
        self.taken: list[list[Span]] = []
        self.written: list[Future[None]] = []

    def offer_spans(self, spans: list[Span]) -> Future[None]:
        self.taken.append(spans)
        self.written.append(Future())
        return self.written[-1]


async def test_what_comes_while_the_store_writes_is_handed_over_at_once() -> None:
    store = SlowStore()
    writer = SpanWriter(store)  # type: ignore[arg-type]
    first, second, third = (a_span("rollout", index) for index in range(3))
    writer.add([first])
    waits_for_first = asyncio.create_task(writer.durable())
    await asyncio.sleep(0)
    writer.add([second])
    writer.add([third])
    waits_for_all = asyncio.create_task(writer.durable())
    await asyncio.sleep(0)
    assert store.taken == [[first]]
    store.written[0].set_result(None)
    await waits_for_first
    assert not waits_for_all.done()
    assert store.taken == [[first], [second, third]]
    store.written[1].set_result(None)
    await waits_for_all
    await writer.idle()


async def test_whoever_waits_hears_that_it_was_not_written_and_the_next_one_is_tried() -> None:
    store = SlowStore()
    writer = SpanWriter(store)  # type: ignore[arg-type]
    writer.add([a_span("rollout")])
    first = [asyncio.create_task(writer.durable()) for _ in range(2)]
    await asyncio.sleep(0)
    writer.add([a_span("rollout", 1)])
    second = asyncio.create_task(writer.durable())
    await asyncio.sleep(0)
    store.written[0].set_exception(StoreError("the disk is full"))
    for waiting in first:
        with pytest.raises(StoreError, match="could not be recorded: the disk is full"):
            await waiting
    store.written[1].set_result(None)
    await second


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    store = SlowStore()
    writer = SpanWriter(store)  # type: ignore[arg-type]
    writer.add([a_span("rollout")])
    leaves, stays = asyncio.create_task(writer.durable()), asyncio.create_task(writer.durable())
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.sleep(0)
    store.written[0].set_result(None)
    await stays
    assert leaves.cancelled()


async def test_where_too_much_waits_already_it_waits_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    writer = SpanWriter(store)
    monkeypatch.setattr(store, "offer_spans", lambda spans: None)
    writer.add([a_span("rollout")])
    await writer.durable()
    assert [span.id for span in await store.spans("rollout", attempt=1)] == ["rollout-1-0"]
    await store.close()
