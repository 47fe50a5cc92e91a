"""Where in a crew the code that is running here belongs.

CrewAI emits its events in the context of what they tell of: an agent's start in the context in which the agent then
runs, a tool's in the thread of the tool. So a context variable, set when something starts and set back when it ends,
says at any moment what is running right here, also in threads and tasks that CrewAI starts with a copied context.
CrewAI's own stack of events is kept the same way, but loses its place: a model call that fails ends twice, and a look
into knowledge that finds no query never ends.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from agentlightning.recording import Recorder, current, failure_of, guarded, locate
from agentlightning.recording import innermost as _innermost
from agentlightning.records import Failure, Span


@dataclass(slots=True, eq=False)
class Place:
    """Something of CrewAI's that runs. ``event`` is the type of the event that began it, ``source`` who emitted that.

    A model call has the event as its ``request``, and its span is that of an expected call (`Recorder.expect_call`).
    ``answer`` is what the last model that was asked right in this place said, ``claimed`` the ids of the tool calls in
    it that have a span by now, ``refused`` the ids (or names) of those that could not be started.
    """

    event: str
    source: Any
    recorder: Recorder
    span: Span | None
    parent: Place | None
    request: Any = None
    ended: bool = False
    answer: Any = None
    claimed: dict[str, object] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    @property
    def is_expected(self) -> bool:
        """Whether this is a model call that the model layer has not taken over."""
        return self.request is not None and self.recorder.expects_call(self.span)

    def answered(self, answer: Any) -> None:
        """A model has answered right in this place."""
        self.answer, self.claimed, self.refused = answer, {}, set()


_here: ContextVar[Place | None] = ContextVar("agentlightning_crewai_here", default=None)
_left: ContextVar[Place | None] = ContextVar("agentlightning_crewai_left", default=None)


def here(recorder: Recorder) -> Place | None:
    """The innermost place of this rollout that runs here. It may have ended meanwhile, where this is a thread that goes
    on in the background."""
    place = _here.get()
    while place is not None and place.recorder is not recorder:
        place = place.parent
    return place


def enter(place: Place) -> None:
    """Something has begun here."""
    _open(place.recorder).append(place)
    _here.set(place)


def find(recorder: Recorder, event: str, source: Any) -> Place | None:
    """The place that ``source`` began with an event and now ends: the nearest around here, else (the context was lost)
    the last one; None when it has ended before."""
    place = here(recorder)
    while place is not None and (place.event != event or place.source is not source or place.ended):
        place = place.parent
    if place is not None:
        return place
    began = (place for place in reversed(_open(recorder)) if place.event == event and place.source is source)
    return next(began, None)


def leave(place: Place, failure: Failure | None = None) -> None:
    """Ends a place, and those in it that nobody ended."""
    inside, inner = here(place.recorder), []  # almost always the place itself
    while inside is not None and inside is not place:
        inner.append(inside)
        inside = inside.parent
    if inside is place:
        for forgotten in inner:
            _end(forgotten)
        _here.set(place.parent)
    _left.set(place)
    _end(place, failure)


@guarded
def abandon(error: Exception) -> None:
    """Ends what is left open in a rollout whose agent has raised: not every version of CrewAI says so of flows."""
    recorder = current()
    if recorder is not None:
        for place in reversed(list(_open(recorder))):
            _end(place, failure_of(error))


def just_left() -> Place | None:
    """The place that was left last here; None from then on, until another one is."""
    place = _left.get()
    _left.set(None)
    return place


def _end(place: Place, failure: Failure | None = None) -> None:
    if place.ended:
        return
    place.ended = True
    _open(place.recorder).remove(place)
    span = place.span if place.request is None else place.recorder.take_expected_call(place.span)
    if span is not None:
        place.recorder.end(span, failure)


def _open(recorder: Recorder) -> list[Place]:
    places: list[Place] | None = recorder.adapter_state.get("crewai")
    return places if places is not None else recorder.adapter_state.setdefault("crewai", [])


def innermost(recorder: Recorder, place: Place | None) -> Span | None:
    """The span that what begins here hangs under: the place's, or one that was opened by hand inside of it; never a
    model call's."""
    place = _around_calls(place)
    return _innermost(place.span) if place is not None else locate(recorder)


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: the expected call, else what runs here; None outside of
    CrewAI."""
    place = here(recorder)
    if place is not None and place.is_expected:
        return place.span
    around = _around_calls(place)
    return around.span if around is not None else None


def _around_calls(place: Place | None) -> Place | None:
    while place is not None and (place.span is None or place.request is not None):
        place = place.parent
    return place
