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

from agentlightning.adapter import guarded
from agentlightning.recording import Recorder, current, current_span, failure_of, locate
from agentlightning.records import Failure, Span


@dataclass(slots=True, eq=False)
class Place:
    """Something of CrewAI's that runs. ``event`` is the type of the event that began it, ``source`` who emitted that;
    ``call`` is the span of the last model call made right in it, ``claimed`` the ids of that call's tool calls that
    have a span by now, ``refused`` the ids (or names) of those that could not be started;
    ``request`` is the event of a model call."""

    event: str
    source: Any
    recorder: Recorder
    span: Span
    parent: Place | None
    ended: bool = False
    call: Span | None = None
    claimed: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    request: Any = None


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
    inside, inner = here(place.recorder), []
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
    place.recorder.end(place.span, failure)


def _open(recorder: Recorder) -> list[Place]:
    places: list[Place] = recorder.scratch.setdefault("crewai", [])
    return places


def innermost(recorder: Recorder, place: Place | None) -> Span | None:
    """The span that what begins here hangs under: the place's, or one that was opened by hand inside of it."""
    if place is None:
        return locate(recorder)
    span = current_span()
    return place.span if span is None or span.ended_at is not None or span.index < place.span.index else span


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: the announced model call, else what runs here; None
    outside of CrewAI."""
    place = here(recorder)
    if place is None:
        return None
    if place.span.kind == "llm":
        if place.span.id in recorder.announced:
            return place.span
        while place is not None and place.span.kind == "llm":
            place = place.parent
        if place is None:
            return None
    return innermost(recorder, place)
