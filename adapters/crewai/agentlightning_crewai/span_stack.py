"""Where in a crew the code that runs here belongs.

CrewAI emits its events in the context of what happens: an agent's start in the context in which the agent then runs,
a tool's in the thread of the tool. So a frame that is pushed when something starts, and popped when it ends, says
at any moment what runs right here, also in threads and tasks that CrewAI starts with a copied context. CrewAI's own
stack of events is kept the same way, but goes wrong: a model call that fails ends twice, and a look into knowledge that
finds no query never ends.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentlightning.adapterkit.span_stack import Frame, SpanStack
from agentlightning.recording import Recorder, current, failure_of, guarded, innermost, locate
from agentlightning.records import Failure, Span, SpanKind

STATE = "crewai"


@dataclass(eq=False)
class EventFrame(Frame):
    """Something of CrewAI's that runs, as one of its events began it.

    ``event`` is the type of that event, ``source`` who emitted it; a model call keeps the event itself as its
    ``request``. ``answer`` is the last answer of a model right in this frame, ``claimed`` the ids of
    the tool calls in it that have a span by now, ``refused`` the ids (or names) of those that could not be started.

    A frame never counts as ``ended`` here: what goes on in the background, after it has ended, belongs to it.
    """

    event: str = ""
    source: Any = None
    request: Any = None
    answer: Any = None
    claimed: dict[str, object] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @property
    def is_expected_call(self) -> bool:
        """Whether this is a model call that the model layer has not taken."""
        return self.request is not None and self.recorder.expects_call(self.span)

    def set_answer(self, answer: Any) -> None:
        """A model has answered right in this frame."""
        self.answer, self.claimed, self.refused = answer, {}, set()


stack = SpanStack[EventFrame](STATE)
_last_ended: ContextVar[EventFrame | None] = ContextVar("agentlightning_crewai_last_ended", default=None)


def begin(
    recorder: Recorder,
    event: str,
    source: Any,
    kind: SpanKind,
    name: str,
    attributes: dict[str, Any],
    *,
    agent: str | None = None,
    request: Any = None,
) -> Span:
    """Something begins here: its frame, and its span."""
    parent = stack.innermost(recorder)
    base = base_of(recorder, parent)
    span = recorder.start(kind, name, parent=base, agent=agent, attributes=attributes)
    frame = EventFrame(recorder, parent, base, span, event=event, source=source, request=request)
    _open(recorder).append(frame)
    stack.push(frame)
    return span


def find(recorder: Recorder, event: str, source: Any) -> EventFrame | None:
    """The frame that ``source`` began with an event and now ends: the nearest around here, else (the context was lost)
    the last one; None when it has ended before."""
    open = _open(recorder)
    frame = stack.innermost(recorder)
    while frame is not None and (frame.event != event or frame.source is not source or frame not in open):
        frame = frame.parent
    if frame is not None:
        return frame
    return next((began for began in reversed(open) if began.event == event and began.source is source), None)


def end(frame: EventFrame, failure: Failure | None = None) -> None:
    """Ends a frame, and those in it that nobody ended."""
    for forgotten in stack.pop(frame):
        _end(forgotten)
    _last_ended.set(frame)
    _end(frame, failure)


@guarded
def end_all(error: Exception) -> None:
    """Ends what is still open in a rollout whose agent has raised: some versions of CrewAI emit no event for flows."""
    recorder = current()
    for frame in reversed(list(_open(recorder))) if recorder is not None else ():
        _end(frame, failure_of(error))


def take_last_ended() -> EventFrame | None:
    """The frame that ended last here, once; None from then on, until another one ends."""
    frame = _last_ended.get()
    _last_ended.set(None)
    return frame


def base_of(recorder: Recorder, frame: EventFrame | None) -> Span | None:
    """The span that what begins in a frame hangs under: never a model call's."""
    while frame is not None and frame.request is not None:
        frame = frame.parent
    return innermost(frame.span) if frame is not None else locate(recorder)


def _end(frame: EventFrame, failure: Failure | None = None) -> None:
    if frame not in _open(frame.recorder):
        return
    _open(frame.recorder).remove(frame)
    span = frame.span if frame.request is None else frame.recorder.take_expected_call(frame.span)
    if span is not None:
        frame.recorder.end(span, failure)


def _open(recorder: Recorder) -> list[EventFrame]:
    frames: list[EventFrame] = recorder.adapter_state.setdefault(STATE, [])
    return frames
