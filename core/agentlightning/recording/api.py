"""What an agent may say about itself: a span, a reward, a note, a prompt that may be tuned. Outside a rollout each of
them does nothing."""

from __future__ import annotations

import contextvars
from contextlib import suppress
from types import TracebackType
from typing import Any, get_args

from agentlightning import semconv
from agentlightning.errors import RewardError
from agentlightning.recording.context import current, locate
from agentlightning.recording.failures import failure_of, guarded
from agentlightning.recording.recorder import Recorder, span_of_context
from agentlightning.records import Failure, Prompt, Reward, Span, SpanKind
from agentlightning.reward_value import reward_value
from agentlightning.system_prompts import render
from agentlightning.threads import was_left


class span:
    """Records a block as a span, for those who want to say more by hand; ``with`` and ``async with``::

        with agl.span("plan", kind="agent") as plan:
            plan.set(steps=3)

    An exception marks the span as failed and passes through.
    """

    def __init__(self, name: str, kind: SpanKind = "agent", *, agent: str | None = None, **attributes: Any) -> None:
        if kind not in get_args(SpanKind):
            raise ValueError(f"agl.span {name!r}: there is no kind {kind!r}; there is: {', '.join(get_args(SpanKind))}")
        self._make = (kind, str(name), None if agent is None else str(agent), attributes)
        self._recorder: Recorder | None = None
        self._record: Span | None = None
        self._token: contextvars.Token[Span | None] | None = None

    def set(self, **attributes: Any) -> None:
        """Adds attributes."""
        if self._record is not None:
            self._record.attributes.update(attributes)

    @guarded
    def _begin(self) -> None:
        self._recorder = current()
        if self._recorder is not None:
            kind, name, agent, attributes = self._make
            parent = locate(self._recorder)
            self._record = self._recorder.start(kind, name, parent=parent, agent=agent, attributes=dict(attributes))
            self._token = span_of_context.set(self._record)

    @guarded
    def _end(self, error: BaseException | None) -> None:
        if self._recorder is None or self._record is None or self._token is None:
            return
        left = was_left(error)
        failure = failure_of(error) if error is not None and not left else None
        self._recorder.end(self._record, failure, left=left)
        with suppress(ValueError):  # a generator that was left is closed in the context of somebody else
            span_of_context.reset(self._token)

    def __enter__(self) -> span:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    async def __aenter__(self) -> span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def reward(
    value: float, name: str = "reward", *, step: bool = False, weight: float = 1.0, reason: str | None = None
) -> None:
    """Says what the current rollout is worth: part of its outcome. With ``step``, what this one step of it is worth: a
    reward of the span that is current, which training learns from and no report counts. Outside a rollout: nothing.

    What is no finite number is kept without a value, with the reason: the rollout is left out, and not zero.
    """
    recorder = current()
    if recorder is not None:
        record, failure = _reward(value, str(name), step, weight, reason)
        recorder.reward(record, failure, parent=locate(recorder))


def _reward(value: Any, name: str, step: Any, weight: Any, reason: Any) -> tuple[Reward, Failure | None]:
    try:
        number, factor = reward_value(value), reward_value(weight)
        if factor is None:
            raise RewardError("gave no weight: expected a number")
    except Exception as error:  # noqa: BLE001 - a stranger's number may raise anything, and harms no agent
        failure = failure_of(error, "reward_error", "infrastructure")
        text = failure.message
        failure.message = f"agl.reward {name!r} {text}"
        return Reward(name=name, value=None, step=bool(step), reason=text), failure
    if number is None and reason is None:
        reason = "the agent could not score this"
    reason = None if reason is None else str(reason)
    return Reward(name=name, value=number, step=bool(step), weight=factor, reason=reason), None


def prompt(name: str, default: str) -> str:
    """The text of a prompt that may be tuned: what an algorithm published, or tries in this rollout, under ``name``;
    ``default`` otherwise, and outside a rollout. Its ``{fields}`` are the caller's own to fill in, and are kept.

        system = agl.prompt("solve", "Solve {question}. Think step by step.").format(question=question)
    """
    recorder = current()
    if recorder is None:
        return default
    _note_prompt(recorder, str(name), str(default))
    for resource in recorder.resources:
        if isinstance(resource, Prompt) and resource.name == name and resource.template is not None:
            return render(resource)
    return default


@guarded
def _note_prompt(recorder: Recorder, name: str, default: str) -> None:
    """Notes, once a rollout, that the code asks for a prompt by this name."""
    known: set[str] = recorder.adapter_state.setdefault("prompts", set())
    if name not in known:
        known.add(name)
        attributes = {semconv.PROMPT_NAME: name, semconv.PROMPT_DEFAULT: default}
        recorder.end(recorder.start("annotation", "prompt", parent=locate(recorder), attributes=attributes))


def annotate(name: str = "annotation", **attributes: Any) -> None:
    """Notes something in the current rollout. Outside a rollout: nothing."""
    recorder = current()
    if recorder is not None:
        note = recorder.start("annotation", str(name), parent=locate(recorder), attributes=attributes)
        recorder.end(note)
