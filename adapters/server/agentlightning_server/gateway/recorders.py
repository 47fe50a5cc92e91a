"""The recorder of each rollout whose calls pass here, and the spans on their way to the disk."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from agentlightning.attempts import seed_of
from agentlightning.errors import StoreError
from agentlightning.recording import Recorder
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import AnyResource, Rollout, Span
from agentlightning.store.base import Store
from agentlightning_server.errors import RequestError

MAX_RECORDERS = 10_000


class Recorders:
    """Of the attempts that run, each with the resources of its rollout; those that were asked for last are kept."""

    def __init__(self, store: Store, writer: SpanWriter) -> None:
        self._store = store
        self._writer = writer
        self._made: OrderedDict[tuple[str, int], asyncio.Task[Recorder]] = OrderedDict()

    async def of(self, rollout_id: str, attempt: int | None = None) -> Recorder:
        """The recorder of a rollout's present attempt, which has to be the one that is asked for, if any.

        Raises `RequestError`: 404 where there is no such rollout, 409 where it does not run.
        """
        rollout = await self._store.rollout(rollout_id)  # each time: another attempt may have begun
        if rollout is None:
            raise RequestError(404, f"there is no rollout {rollout_id} in this store")
        if rollout.status != "running":
            raise RequestError(
                409, f"rollout {rollout_id} is {rollout.status}, and calls are recorded for one that runs: lease it"
            )
        if attempt not in (None, rollout.attempt):
            raise RequestError(
                409,
                f"rollout {rollout_id} is at attempt {rollout.attempt}: none of {attempt} is recorded",
            )
        key = (rollout_id, rollout.attempt)
        making = self._made.get(key)
        if making is None:
            making = self._made[key] = asyncio.create_task(self._make(rollout))
            if len(self._made) > MAX_RECORDERS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        try:
            return await asyncio.shield(making)
        except StoreError:
            self._made.pop(key, None)
            raise

    async def _make(self, rollout: Rollout) -> Recorder:
        run = await self._store.run(rollout.run_id)
        written = await self._store.spans(rollout.id, attempt=rollout.attempt)
        replays = rollout.replays
        repeats = None
        if replays is not None:
            answers = await self._store.spans(replays.rollout_id, attempt=replays.attempt)
            repeats = RecordedAnswers(answers, replays.calls)
        return Recorder(
            rollout.id,
            rollout.attempt,
            self._writer.add,
            await self._resources(rollout),
            seed=seed_of(run, rollout) if run is not None else None,
            repeats=repeats,
            first_index=max((span.index for span in written), default=-1) + 1,
        )

    async def _resources(self, rollout: Rollout) -> list[AnyResource]:
        found = []
        for name, digest in rollout.resources.items():
            resource = await self._store.resource(rollout.run_id, digest)
            if resource is None:
                raise StoreError(f"rollout {rollout.id} names the resource {name} ({digest}), which the store lacks")
            found.append(resource)
        return found


class SpanWriter:
    """Hands spans to a store in batches, from an event loop that it does not block."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[Span] = []
        self._next: asyncio.Future[Exception | None] | None = None
        self._writing: asyncio.Task[None] | None = None

    def add(self, spans: Sequence[Span]) -> None:
        """Has them written soon."""
        self._waiting.extend(spans)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def durable(self) -> None:
        """Returns when everything added before is durable. Raises `StoreError` where it cannot be."""
        if self._next is None:
            await self.idle()
            return
        failure = await asyncio.shield(self._next)
        if failure is not None:
            raise StoreError(f"the call could not be recorded: {failure}") from failure

    async def idle(self) -> None:
        """Returns when nothing is being written."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def _write(self) -> None:
        while self._next is not None:
            spans, written = self._waiting, self._next
            self._waiting, self._next = [], None
            try:
                await asyncio.to_thread(self._store.add_spans, spans)
                await self._store.flush()
            except Exception as error:  # noqa: BLE001 - whoever waits is told
                written.set_result(error)
            else:
                written.set_result(None)
        self._writing = None
