"""Which span a span of the SDK's tracing belongs to.

A `Place` is kept for each trace and span of the SDK as long as its recorder lives, so that what makes no span of its
own (the run of an agent, speech) leads to the nearest one above.
"""

from __future__ import annotations

import functools
import logging
import sys
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from agents.tracing import get_current_span, get_current_trace

from agentlightning.recording import Recorder, current, current_span, locate
from agentlightning.records import Span

logger = logging.getLogger(__name__)

SCRATCH = "openai-agents"
NO_ID = "no-op"
"""The id of every span and trace of the SDK while tracing is disabled."""


@dataclass(slots=True, weakref_slot=True, eq=False)
class Place:
    """Where a trace or span of the SDK stands. ``base`` is the span it hangs under, ``span`` its own, if any;
    ``before`` is the exception that was being handled around it when it began, ``error`` the one that the SDK
    handled inside of it. ``call`` is the model call made last directly in it, ``tools`` are the SDK's spans of the
    tools run since then."""

    recorder: Recorder
    above: Place | None
    base: Span | None
    span: Span | None = None
    before: BaseException | None = None
    error: BaseException | None = None
    call: Span | None = None
    tools: list[Any] = field(default_factory=list)

    @property
    def inner(self) -> Span | None:
        """The span that what happens here hangs under."""
        return self.span if self.span is not None else self.base


_places: WeakValueDictionary[str, Place] = WeakValueDictionary()


def enter(span: Any) -> Place | None:
    """The place of a span of the SDK that begins; None outside of a rollout."""
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    above = _place(recorder, span.parent_id, span.trace_id)
    place = Place(recorder, above, innermost(above.inner) if above is not None else locate(recorder))
    place.before = sys.exc_info()[1]
    _places[span.span_id] = place
    _kept(recorder)[span.span_id] = place
    return place


def enter_trace(trace: Any) -> Place | None:
    """The place of a trace that begins; None outside of a rollout. Several rollouts may give theirs the same id."""
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    place = Place(recorder, None, locate(recorder), before=sys.exc_info()[1])
    _kept(recorder)[trace.trace_id] = place
    return place


def place_of(span: Any) -> Place | None:
    """The place of a span of the SDK, from whatever context it ends in."""
    return _places.get(span.span_id)


def place_of_trace(trace: Any) -> Place | None:
    """The place of a trace in the current rollout."""
    recorder = current()
    return _kept(recorder).get(trace.trace_id) if recorder is not None else None


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: the announced call, else the tool, guardrail, turn or
    agent that is running, else one that was opened by hand inside of it; None outside of the SDK."""
    span = get_current_span()
    trace = get_current_trace() if span is None else None
    found = span if span is not None else trace
    if found is None:
        return None
    if found.trace_id == NO_ID:
        _warn_of_disabled_tracing()
        return None
    place = _place(recorder, span.span_id if span is not None else None, found.trace_id)
    if place is None:
        _warn_of_lost_processor()
        return None
    over = place.inner
    if over is not None and over.kind == "llm" and over.id not in recorder.announced:
        over = place.base
    return innermost(over)


def innermost(span: Span | None) -> Span | None:
    """``span``, or the span that was opened by hand after it began."""
    here = current_span()
    if here is None or here.ended_at is not None or (span is not None and here.index <= span.index):
        return span
    return here


def _kept(recorder: Recorder) -> dict[str, Place]:
    kept: dict[str, Place] = recorder.scratch.setdefault(SCRATCH, {})
    return kept


def _place(recorder: Recorder, span_id: str | None, trace_id: str) -> Place | None:
    return _kept(recorder).get(trace_id if span_id is None else span_id)


@functools.cache
def _warn_of_disabled_tracing() -> None:
    logger.warning(
        "the tracing of the OpenAI Agents SDK is disabled (tracing_disabled=True, set_tracing_disabled or "
        "OPENAI_AGENTS_DISABLE_TRACING): model calls are recorded, and no agents, tools and hand-offs. Leave it on: "
        "in a rollout nothing is sent to OpenAI"
    )


@functools.cache
def _warn_of_lost_processor() -> None:
    logger.warning(
        "the adapter is not told of a trace of the OpenAI Agents SDK (it began outside of the rollout, or "
        "set_trace_processors or set_trace_provider was called since the adapter was installed): model calls are "
        "recorded, and no agents, tools and hand-offs. Call those two where the agent's module is imported"
    )
