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

from agentlightning.recording import Recorder, current, current_span, failure_of, guarded, locate
from agentlightning.records import Failure, Span


@dataclass(slots=True, eq=False)
class Place:
    """Something of CrewAI's that runs. ``event`` is the type of the event that began it, ``source`` who emitted that.

    A model call has no span here, but the event as ``request``; ``seen`` says that the model layer records it.
    ``answer`` is what the last model that was asked right in this place said, ``claimed`` the ids of the tool calls in
    it that have a span by now, ``refused`` the ids (or names) of those that could not be started.
    """

    event: str
    source: Any
    recorder: Recorder
    span: Span | None
    parent: Place | None
    request: Any = None
    seen: bool = False
    ended: bool = False
    answer: Any = None
    claimed: dict[str, object] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

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
    if place.span is not None:
        place.recorder.end(place.span, failure)


def _open(recorder: Recorder) -> list[Place]:
    places: list[Place] | None = recorder.scratch.get("crewai")
    if places is None:
        places = recorder.scratch.setdefault("crewai", [])
        recorder.on_call.append(_see_call)
    return places


def _see_call(recorder: Recorder) -> None:
    """The model layer records a call right here."""
    place = here(recorder)
    while place is not None and place.span is None:
        place.seen = True
        place = place.parent


def innermost(recorder: Recorder, place: Place | None) -> Span | None:
    """The span that what begins here hangs under: the place's, or one that was opened by hand inside of it."""
    while place is not None and place.span is None:
        place = place.parent
    if place is None:
        return locate(recorder)
    own, span = place.span, current_span()
    return own if span is None or own is None or span.ended_at is not None or span.index < own.index else span


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: what runs here; None outside of CrewAI."""
    place = here(recorder)
    while place is not None and place.span is None:
        place = place.parent
    return innermost(recorder, place) if place is not None else None
