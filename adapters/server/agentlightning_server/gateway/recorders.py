"""The recorder of each rollout whose calls pass here, and the spans on their way to the disk."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from agentlightning.attempts import seed_of
from agentlightning.errors import StoreError
from agentlightning.recording import Recorder
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import AnyResource, Rollout, Span
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_server.errors import RequestError

logger = logging.getLogger(__name__)

MAX_RECORDERS = 10_000


class Recorders:
    """Of the attempts that run, each with the resources of its rollout; those that were asked for last are kept."""

    def __init__(self, store: SQLiteStore, writer: SpanWriter) -> None:
        self._store = store
        self._writer = writer
        self._made: OrderedDict[tuple[str, int], asyncio.Task[Recorder]] = OrderedDict()

    def present_attempt(self, rollout_id: str, attempt: int | None = None) -> int:
        """The attempt of a rollout that runs, which has to be the one that is asked for, if any.

        Raises `RequestError`: 404 where there is no such rollout, 409 where it does not run.
        """
        standing = self._store.standing(rollout_id)  # each time: another attempt may have begun
        if standing is None:
            raise RequestError(404, f"there is no rollout {rollout_id} in this store")
        status, present = standing
        if status != "running":
            raise RequestError(
                409, f"rollout {rollout_id} is {status}, and calls are recorded for one that runs: lease it"
            )
        if attempt not in (None, present):
            raise RequestError(
                409,
                f"rollout {rollout_id} is at attempt {present}: none of {attempt} is recorded",
            )
        return present

    async def of(self, rollout_id: str, attempt: int | None = None) -> Recorder:
        """The recorder of that attempt. Raises as `present_attempt` does."""
        present = self.present_attempt(rollout_id, attempt)
        key = (rollout_id, present)
        making = self._made.get(key)
        if making is None:
            making = self._made[key] = asyncio.create_task(self._make(rollout_id, present))
            if len(self._made) > MAX_RECORDERS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        try:
            return making.result() if making.done() else await asyncio.shield(making)
        except StoreError:
            self._made.pop(key, None)
            raise

    async def _make(self, rollout_id: str, attempt: int) -> Recorder:
        rollout = await self._store.rollout(rollout_id)
        if rollout is None:
            raise StoreError(f"rollout {rollout_id} was removed while it was called for")
        run = await self._store.run(rollout.run_id)
        written = await self._store.spans(rollout.id, attempt=attempt)
        replays = rollout.replays
        repeats = None
        if replays is not None:
            answers = await self._store.spans(replays.rollout_id, attempt=replays.attempt)
            repeats = RecordedAnswers(answers, replays.calls)
        return Recorder(
            rollout.id,
            attempt,
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
    """Hands spans to a store from an event loop that it does not block. What comes while the store writes is handed
    over at once, when it is done: each time that its thread and this one take turns costs more than a span does."""

    def __init__(self, store: SQLiteStore) -> None:
        self._store = store
        self._batch: list[Span] = []
        self._writing: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    def add(self, spans: Sequence[Span]) -> None:
        """Has them written soon."""
        self._batch.extend(spans)
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(_told)
        if self._writing is None:
            self._hand_over()

    async def durable(self) -> None:
        """Returns when what was added last is durable, and with it all before. Raises `StoreError` where it cannot
        be."""
        last = self._next or self._writing
        if last is None:
            return
        try:
            await asyncio.shield(last)
        except StoreError as error:
            raise StoreError(f"the call could not be recorded: {error}") from error

    async def idle(self) -> None:
        """Returns when nothing is being written."""
        while (last := self._next or self._writing) is not None:
            await asyncio.wait([last])

    def _hand_over(self) -> None:
        spans, self._batch = self._batch, []
        self._writing, self._next = self._next, None
        try:
            taken = self._store.offer_spans(spans)
        except Exception as error:  # noqa: BLE001 - for whoever waits
            self._written(error)
            return
        loop = asyncio.get_running_loop()
        if taken is None:  # too much waits already: for that in a thread
            taken = asyncio.run_coroutine_threadsafe(self._wait_and_write(spans), loop)
        taken.add_done_callback(lambda done: loop.call_soon_threadsafe(self._written, done.exception()))

    def _written(self, error: BaseException | None) -> None:
        written, self._writing = self._writing, None
        assert written is not None
        if error is not None:
            written.set_exception(error)
        else:
            written.set_result(None)
        if self._next is not None:
            self._hand_over()

    async def _wait_and_write(self, spans: Sequence[Span]) -> None:
        await asyncio.to_thread(self._store.add_spans, spans)
        await self._store.flush()


def _told(writing: asyncio.Future[None]) -> None:
    if not writing.cancelled() and writing.exception() is not None:
        logger.debug("spans wait to be written again: %s", writing.exception())
