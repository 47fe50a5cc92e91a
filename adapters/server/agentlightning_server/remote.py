"""The store of a Lightning Server, as every other store."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from agentlightning.errors import StoreError, StoreRefusedError
from agentlightning.records import AnyResource, Failure, Purpose, Reward, Rollout, Span, Task, decode, encode
from agentlightning.redaction import begin_redacting, scrub
from agentlightning.store.base import Checkpoint, Metric, Recorded, RunRecord, RunStatus, RunSummary, Store
from agentlightning.store.promotions import Promotion, revision_of
from agentlightning.store.tries import TryCount
from agentlightning_server.asking import PATIENCE_SECONDS
from agentlightning_server.connection import Connection, closed
from agentlightning_server.methods import METHODS
from agentlightning_server.outbox import Outbox
from agentlightning_server.wire import CHUNK_BYTES, KEY_VARIABLE, MAX_BODY_BYTES, PAGE, WAIT_SECONDS

T = TypeVar("T")

ENVELOPE_BYTES = 1024
"""What a body has beside its records, at most."""


def open_remote(url: str) -> RemoteStore:
    """The store of the server at ``http://HOST:PORT``, with the key in ``AGL_SERVER_KEY``. Raises `StoreError`."""
    return RemoteStore(url)


class RemoteStore(Store):
    """A store that a Lightning Server keeps.

    `add_spans` and `add_metrics` return at once; only when 64 MiB wait to be sent do they wait for the server. What was
    handed over is durable there after `flush`, and before any call that concludes something (`finish`, `add_rewards`,
    `update_run`, `close_run`, `put_checkpoint`) is done.

    A server that does not answer is asked again for ``patience`` seconds; no write is done twice by that. What this
    object holds, runs and leases, is its own until `close`, or until the server has not heard from it for a minute.
    """

    def __init__(
        self, url: str, *, key: str | None = None, patience: float = PATIENCE_SECONDS, session: str | None = None
    ) -> None:
        """Says hello to the server; ``session`` is the token of its session, by default one that is drawn. Raises
        `StoreError`."""
        begin_redacting()
        key = key or os.environ.get(KEY_VARIABLE) or None
        self._connection = Connection(url, key=key, patience=patience, session=session)
        self._outbox = Outbox(self._send, self._connection.loop, self._connection.url)
        self._sending = self._connection.start(self._outbox.run())
        self._held: set[str] = set()
        self._closed = False

    async def open_run(self, run: RunRecord) -> RunRecord:
        opened: RunRecord = await self._call("open_run", run=run)
        return opened

    async def update_run(self, run: RunRecord) -> None:
        await self._conclude("update_run", run=run)

    async def close_run(self, run_id: str, status: RunStatus, message: str | None = None) -> None:
        await self._conclude("close_run", run_id=run_id, status=status, message=message)

    async def runs(self) -> list[RunRecord]:
        found: list[RunRecord] = await self._call("runs")
        return found

    async def run(self, run_id: str) -> RunRecord | None:
        found: RunRecord | None = await self._call("run", run_id=run_id)
        return found

    async def add_tasks(self, run_id: str, tasks: Sequence[Task]) -> None:
        for chunk in _chunks(map(encode, tasks)):
            await self._call("add_tasks", run_id=run_id, tasks=chunk)

    async def tasks(self, run_id: str, ids: Iterable[str] | None = None) -> dict[str, Task]:
        found: dict[str, Task] = await self._call("tasks", run_id=run_id, ids=None if ids is None else list(ids))
        return found

    async def enqueue(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        known: list[Rollout] = []
        for chunk in _chunks(map(_scrubbed, rollouts)):
            known += await self._call("enqueue", rollouts=chunk)
        return known

    async def lease(
        self,
        worker: str,
        *,
        ids: Sequence[str] | None = None,
        run_id: str | None = None,
        limit: int = 1,
        seconds: float = 60.0,
    ) -> list[Rollout]:
        self._refuse_if_closed()
        wanted = None if ids is None else list(ids)
        leasing = self._connection.start(self._lease(worker, wanted, run_id, limit, seconds))
        answer = asyncio.wrap_future(leasing)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody asks for it any more
            if not self._closed:
                self._connection.start(self._give_back(asyncio.wrap_future(leasing, loop=self._connection.loop)))
            raise

    async def heartbeat(self, worker: str, *, seconds: float = 60.0) -> None:
        await self._call("heartbeat", worker=worker, seconds=seconds)

    async def finish(self, rollout: Rollout) -> bool:
        finished: bool = await self._conclude("finish", rollout=msgspec.Raw(_scrubbed(rollout)))
        self._held.discard(rollout.id)
        return finished

    async def wait(self, ids: Iterable[str], *, seconds: float | None = None) -> list[Rollout]:
        wanted = list(ids)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            ended: list[Rollout] = await self._call("wait", ids=wanted, seconds=min(left, WAIT_SECONDS))
            if ended or not wanted or time.monotonic() >= deadline:
                return ended

    async def wait_for_ended(self, run_id: str, *, more_than: int, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while True:
            left = min(max(0.0, deadline - time.monotonic()), WAIT_SECONDS)
            ended: int = await self._call("wait_for_ended", run_id=run_id, more_than=more_than, seconds=left)
            if ended > more_than or time.monotonic() >= deadline:
                return ended

    async def add_rewards(
        self, rollout_id: str, attempt: int, rewards: Sequence[Reward], failure: Failure | None = None
    ) -> bool:
        given = [msgspec.Raw(_scrubbed(reward)) for reward in rewards]
        added: bool = await self._conclude(
            "add_rewards", rollout_id=rollout_id, attempt=attempt, rewards=given, failure=failure
        )
        return added

    async def add_recorded(self, run: RunRecord, recorded: Sequence[Recorded]) -> None:
        records = [msgspec.Raw(_scrubbed(one)) for one in recorded]
        await self._call("add_recorded", run=msgspec.Raw(_scrubbed(run)), recorded=records)

    async def rollouts(
        self,
        run_id: str,
        *,
        purpose: Purpose | None = None,
        collection: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Rollout]:
        found: list[Rollout] = []
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            asked = {"run_id": run_id, "purpose": purpose, "collection": collection, "after": after, "limit": size}
            page: list[Rollout] = await self._call("rollouts", **asked)
            found += page
            if len(page) < size:
                break
            after = page[-1].id
        return found

    async def summary(self, run_id: str) -> RunSummary:
        found: RunSummary = await self._call("summary", run_id=run_id)
        return found

    async def tries(self, run_id: str, *, since: float | None = None, bucket: float | None = None) -> list[TryCount]:
        found: list[TryCount] = await self._call("tries", run_id=run_id, since=since, bucket=bucket)
        return found

    async def rollout(self, rollout_id: str) -> Rollout | None:
        found: Rollout | None = await self._call("rollout", rollout_id=rollout_id)
        return found

    async def rollout_with_spans(self, rollout_id: str) -> tuple[Rollout, list[Span]]:
        found: tuple[Rollout, list[Span]] = await self._call("rollout_with_spans", rollout_id=rollout_id)
        return found

    def add_spans(self, spans: Sequence[Span]) -> None:
        self._hand_over("add_spans", list(map(_scrubbed, spans)))

    async def spans(self, rollout_id: str, *, attempt: int | None = None) -> list[Span]:
        found: list[Span] = await self._call("spans", rollout_id=rollout_id, attempt=attempt)
        return found

    def add_metrics(self, metrics: Sequence[Metric]) -> None:
        self._hand_over("add_metrics", list(map(encode, metrics)))

    async def metrics(self, run_id: str) -> list[Metric]:
        found: list[Metric] = await self._call("metrics", run_id=run_id)
        return found

    async def flush(self) -> None:
        self._refuse_if_closed()
        await self._acknowledged()

    async def put_resource(self, run_id: str, resource: AnyResource) -> None:
        await self._call("put_resource", run_id=run_id, resource=resource)

    async def resources(self, run_id: str) -> list[AnyResource]:
        found: list[AnyResource] = await self._call("resources", run_id=run_id)
        return found

    async def resource(self, run_id: str, digest: str) -> AnyResource | None:
        found: AnyResource | None = await self._call("resource", run_id=run_id, digest=digest)
        return found

    async def promotions(self, target: str | None = None) -> list[Promotion]:
        found: list[Promotion] = await self._call("promotions", target=target)
        return found

    async def put_promotions(self, target: str, promotions: Sequence[Promotion], *, revision: int) -> bool:
        records = [msgspec.Raw(_scrubbed(one)) for one in promotions]
        written: bool = await self._conclude("put_promotions", target=target, promotions=records, revision=revision)
        return written

    async def wait_for_promotions(self, target: str, *, newer_than: int, seconds: float) -> list[Promotion]:
        deadline = time.monotonic() + seconds
        while True:
            left = min(max(0.0, deadline - time.monotonic()), WAIT_SECONDS)
            asked = {"target": target, "newer_than": newer_than, "seconds": left}
            found: list[Promotion] = await self._call("wait_for_promotions", **asked)
            if revision_of(found) > newer_than or time.monotonic() >= deadline:
                return found

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        await self._conclude("put_checkpoint", checkpoint=checkpoint)

    async def last_checkpoint(self, run_id: str) -> Checkpoint | None:
        found: Checkpoint | None = await self._call("last_checkpoint", run_id=run_id)
        return found

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._acknowledged()
        finally:
            self._outbox.close()
            await self._connection.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise closed(self._connection.url)

    def _hand_over(self, method: str, records: list[bytes]) -> None:
        self._refuse_if_closed()
        for data in records:
            _refuse_if_too_large(data)
        self._outbox.add(method, records)

    async def _acknowledged(self) -> None:
        """What was handed over so far is durable."""
        handed_over = self._outbox.handed_over
        await asyncio.wrap_future(self._connection.start(self._outbox.acknowledged(handed_over)))

    async def _conclude(self, name: str, **arguments: Any) -> Any:
        """Calls a method once what was handed over before is durable."""
        self._refuse_if_closed()
        body = _body(name, arguments)  # as it is now
        await self._acknowledged()
        return await self._ask(name, body)

    async def _call(self, name: str, **arguments: Any) -> Any:
        self._refuse_if_closed()
        return await self._ask(name, _body(name, arguments))

    async def _ask(self, name: str, body: bytes) -> Any:
        answer = await asyncio.wrap_future(self._connection.start(self._connection.call(METHODS[name], body)))
        return _result(name, answer)

    async def _send(self, name: str, records: list[msgspec.Raw]) -> None:
        field = name.removeprefix("add_")
        await self._connection.call(METHODS[name], _body(name, {field: records}))

    async def _lease(
        self, worker: str, ids: list[str] | None, run_id: str | None, limit: int, seconds: float
    ) -> list[Rollout]:
        asked = {"worker": worker, "ids": ids, "run_id": run_id, "limit": limit, "seconds": seconds}

        def body() -> bytes:
            return _body("lease", {**asked, "held": list(self._held)})

        leased: list[Rollout] = _result("lease", await self._connection.call(METHODS["lease"], body))
        self._held.update(rollout.id for rollout in leased)
        return leased

    async def _give_back(self, leasing: asyncio.Future[list[Rollout]]) -> None:
        """Queues what was leased for somebody who no longer waits for it."""
        for rollout in await leasing:
            rollout.status = "queued"
            await self._connection.call(METHODS["finish"], _body("finish", {"rollout": rollout}))
            self._held.discard(rollout.id)


def _body(name: str, arguments: dict[str, Any]) -> bytes:
    return _refuse_if_too_large(encode(METHODS[name].arguments(**arguments)))


def _result(name: str, answer: bytes) -> Any:
    try:
        return decode(answer, METHODS[name].result)
    except msgspec.MsgspecError as error:
        raise StoreError(
            f"the server's answer to {name} cannot be read: {error}; install the same version here as there"
        ) from error


def _scrubbed(record: Any) -> bytes:
    """A record as the server gets it: without the secrets that this process has met, which that one has not."""
    return scrub(encode(record))


def _chunks(records: Iterable[bytes]) -> Iterator[list[msgspec.Raw]]:
    """The records, about `CHUNK_BYTES` at a time; one chunk where there is none."""
    chunk: list[msgspec.Raw] = []
    size = 0
    for data in records:
        if chunk and size + len(data) > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(msgspec.Raw(data))
        size += len(data)
    yield chunk


def _refuse_if_too_large(data: bytes) -> bytes:
    """Raises `StoreRefusedError` for what no server takes."""
    if len(data) > MAX_BODY_BYTES - ENVELOPE_BYTES:
        raise StoreRefusedError(
            f"{len(data):,} bytes at once are more than a server takes ({MAX_BODY_BYTES:,}): write less"
        )
    return data
