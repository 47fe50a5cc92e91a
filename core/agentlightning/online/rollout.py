"""One run of a deployed agent that is recorded; and the choice of those that are."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agentlightning.adapterkit.attributes import agent_attributes
from agentlightning.agent_here import attribute_failure, last_call_failure
from agentlightning.codec import readable
from agentlightning.online.buffer import Buffer
from agentlightning.online.production import NOTHING, Given
from agentlightning.online.spool import Item
from agentlightning.recording.context import Unsampled, recording, unsampled
from agentlightning.recording.failures import failure_of, guarded
from agentlightning.recording.recorder import Recorder, span_of_context
from agentlightning.records import Failure, Rollout, Span, Task, encode
from agentlightning.redaction import scrub
from agentlightning.store.base import Recorded
from agentlightning.threads import was_left

COLLECTION = "live"


def is_sampled(rollout_id: str, rate: float) -> bool:
    """Whether a rollout is recorded where a share ``rate`` of them is: the same for the same id, whoever asks."""
    return int(rollout_id, 16) < rate * 16.0 ** len(rollout_id)


class LeftOut:
    """A run that is not recorded, and nothing in it."""

    def __init__(self) -> None:
        self.rollout_id: str | None = None
        self._mark = Unsampled()

    @contextmanager
    def active(self) -> Iterator[None]:
        token = unsampled.set(self._mark)
        try:
            yield
        finally:
            unsampled.reset(token)

    def end(self, output: Any, error: BaseException | None) -> None:
        self._mark.ended = True


class Unrecorded:
    """A run that is not recorded, and whose calls get ``given`` all the same."""

    def __init__(self, rollout_id: str, given: Given) -> None:
        self.rollout_id: str | None = None
        self._recorder = Recorder(rollout_id, 1, _drop, given.resources, is_live=True, is_kept=False)

    @contextmanager
    def active(self) -> Iterator[None]:
        with recording(self._recorder):
            yield

    @guarded
    def end(self, output: Any, error: BaseException | None) -> None:
        self._recorder.close()


def _drop(spans: Sequence[Span]) -> None:
    """Nobody keeps them."""


class LiveRollout:
    """A run that is recorded: the rollout ``rollout_id`` of the buffer's live run, whose calls get what is ``given``.

    With ``agent`` the span of an agent of that name is around all of it.
    """

    def __init__(
        self, buffer: Buffer, rollout_id: str, *, input: Any, agent: str | None, given: Given = NOTHING
    ) -> None:
        self.rollout_id: str | None = rollout_id
        self._buffer = buffer
        input = readable(input)
        self._task = Task(id=_digest(encode(input)), input=input)
        now = time.time()
        self._rollout = Rollout(
            id=rollout_id,
            run_id=buffer.run.id,
            group_id=_digest(f"{buffer.run.id}\0{self._task.id}".encode()),
            task_id=self._task.id,
            purpose="observe",
            collection=given.collection or COLLECTION,
            resources={resource.name: resource.digest for resource in given.resources},
            attempt=1,
            status="running",
            created_at=now,
            started_at=now,
        )
        self._recorder = Recorder(rollout_id, 1, self._keep, given.resources, is_live=True)
        self._dropped = False
        self._ended = False
        self._put("begin", self._record())
        self._root: Span | None = None
        if agent is not None:
            self._root = self._recorder.start("agent", agent, agent=agent, attributes=agent_attributes("live"))

    @contextmanager
    def active(self) -> Iterator[None]:
        with recording(self._recorder):
            token = span_of_context.set(self._root)
            try:
                yield
            finally:
                span_of_context.reset(token)

    @guarded
    def end(self, output: Any, error: BaseException | None) -> None:
        """Writes what came of it, once."""
        if self._ended or self._recorder.forked:
            return
        self._ended = True
        failure = self._failure(error)
        if self._root is not None:
            self._recorder.end(self._root, failure, left=was_left(error))
        self._recorder.close(failure)
        rollout = self._rollout
        rollout.status = "succeeded" if failure is None else "cancelled" if failure.type == "cancelled" else "failed"
        if self._recorder.not_applied is not None:
            rollout.resources = {}
        rollout.failure, rollout.output = failure, readable(output)
        rollout.rewards, rollout.ended_at = list(self._recorder.rewards), time.time()
        self._put("end", self._record())

    def _failure(self, error: BaseException | None) -> Failure | None:
        if error is None or was_left(error):
            return last_call_failure(self._recorder)
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
            return failure_of(error)
        return attribute_failure(error, self._recorder)

    def _record(self) -> bytes:
        return scrub(encode(Recorded(task=self._task, rollout=self._rollout)))

    def _keep(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self._keep_one(span)

    @guarded
    def _keep_one(self, span: Span) -> None:
        self._put("span", scrub(encode(span)))

    def _put(self, kind: Any, record: bytes) -> None:
        """Hands something over; where it does not fit, the rollout is dropped whole."""
        if self._dropped or self._recorder.forked:
            return
        if not self._buffer.put(Item(kind, self._rollout.id, record)):
            self._dropped = True
            self._buffer.put(Item("drop", self._rollout.id))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
