"""The agent run on one task in this process: recorded, bounded, and every way in which it can fail named."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from agentlightning.adapter import Adapter
from agentlightning.bounded import TimeLimitError, run_bounded
from agentlightning.codec import readable
from agentlightning.errors import RedirectError
from agentlightning.recording import Recorder, failure_of, recording
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import AnyResource, Failure, Record, Reward, Span
from agentlightning.threads import needs_main_thread
from agentlightning.tracebacks import definition, origin

Keep = Callable[[Sequence[Span]], None]
"""Takes spans as they end, from any thread."""


class Assignment(Record, kw_only=True):
    """One attempt of a rollout, as it is handed to whoever runs the agent.

    Its first ``calls`` calls of a policy get the answers that are recorded in ``answers``, where there are any.
    """

    rollout_id: str
    attempt: int
    input: Any
    resources: list[AnyResource] = []
    seed: int
    answers: list[Span] | None = None
    calls: int = 0


class Performed(Record, kw_only=True):
    """What came of an attempt: what the agent returned, or why it did not, and the rewards that it gave."""

    output: Any = None
    failure: Failure | None = None
    rewards: list[Reward] = []


Perform = Callable[[Assignment, Keep], Awaitable[Performed]]
"""Runs the agent once. Cancelled, it leaves nothing running."""


class AgentHere:
    """An agent in this process. It may run for ``timeout`` seconds, which is the option ``limit``."""

    def __init__(self, agent: Any, adapter: Adapter, *, timeout: float, limit: str = "runner.timeout") -> None:
        self._agent = agent
        self._adapter = adapter
        self._timeout = timeout
        self._limit = limit

    async def perform(self, assignment: Assignment, keep: Keep) -> Performed:
        """Runs the agent once; its spans are handed to ``keep``."""
        spans: list[Span] = []

        def sink(batch: Sequence[Span]) -> None:
            spans.extend(batch)
            keep(batch)

        repeats = None if assignment.answers is None else RecordedAnswers(assignment.answers, assignment.calls)
        recorder = Recorder(
            *(assignment.rollout_id, assignment.attempt, sink, assignment.resources),
            seed=assignment.seed,
            repeats=repeats,
        )
        try:
            output, failure = await self._call(recorder, assignment.input)
        except asyncio.CancelledError as error:
            recorder.close(failure_of(error))
            raise
        if failure is not None and failure.where is None:
            failure.where = definition(self._agent)
        output = readable(output)
        recorder.close(failure)
        if repeats is not None:
            failure = repeats.divergence(spans, failure) or failure
        return Performed(output=output, failure=failure, rewards=list(recorder.rewards))

    async def _call(self, recorder: Recorder, input: Any) -> tuple[Any, Failure | None]:
        with recording(recorder):
            outcome = await run_bounded(self._run(input), seconds=self._timeout)
        if isinstance(outcome.error, TimeLimitError):
            late = f"the agent took longer than {self._limit} = {self._timeout:g} s"
            return None, Failure(type="timeout", message=late, where=origin(outcome.error))
        if outcome.error is not None:
            return None, attribute_failure(outcome.error, recorder)
        return outcome.value, last_call_failure(recorder)

    async def _run(self, input: Any) -> Any:
        return await self._adapter.run(self._agent, input)


def attribute_failure(error: BaseException, recorder: Recorder) -> Failure:
    """The failure recorded where the error came from, when it was recorded; else the agent's own."""
    if not isinstance(error, Exception):
        return _stopped(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {f"{part.__class__.__module__}.{part.__class__.__qualname__}" for part in chain}
    for failure in reversed(recorder.failures):
        if failure.exception in names and failure.type != "agent_error":
            return msgspec.structs.replace(failure, where=origin(error))
    failure = failure_of(next((part for part in chain if isinstance(part, RedirectError)), error))
    if needs_main_thread(error):
        failure.message += "; agents run in threads, many at once: give their clients a time-out in place of a signal"
    return failure


def _stopped(error: BaseException) -> Failure:
    """What is no `Exception` (SystemExit, a CancelledError of a task that the agent had cancelled) stops an agent, and
    was meant for nobody else: not for this run."""
    failure = failure_of(error)
    failure.type = "agent_error"
    where = ", of a task or future that it had cancelled" if isinstance(error, asyncio.CancelledError) else ""
    failure.message = f"the agent raised {type(error).__name__}{where}: {failure.message}"
    return failure


def last_call_failure(recorder: Recorder) -> Failure | None:
    """An agent that swallowed a broken model call and went on has no valid result when that call was its
    last one."""
    last = recorder.last_call
    return last.failure if last is not None and last.failure and last.failure.fault == "infrastructure" else None
