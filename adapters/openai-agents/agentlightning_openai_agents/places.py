"""Which span a span of the SDK's tracing belongs to.

A `Place` is kept for each trace and span of the SDK as long as its recorder lives, so that what makes no span of its
own (the run of an agent, speech) leads to the nearest one above.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.tracing import get_current_span, get_current_trace

from agentlightning.recording import Recorder, current, innermost, locate
from agentlightning.records import Span, SpanKind

logger = logging.getLogger(__name__)

SCRATCH = "openai-agents"
NO_ID = "no-op"
"""The id of every span and trace of the SDK while tracing is disabled."""


@dataclass(slots=True, eq=False)
class Place:
    """Where a trace or span of the SDK stands. ``base`` is the span it hangs under, ``span`` its own, if any, ``data``
    what the SDK says of it; ``before`` is the exception that was being handled around it when it began, ``error`` the
    one that the SDK handled inside of it. ``call`` is the model call made last directly in it, ``tools`` are the SDK's
    spans of the tools run since then. ``begin`` begins the span of a tool that may have begun before an approval: which
    one it is, its arguments tell, and they are known a little later."""

    recorder: Recorder
    above: Place | None
    base: Span | None
    before: BaseException | None
    data: Any = None
    span: Span | None = None
    error: BaseException | None = None
    call: Span | None = None
    tools: list[Any] = field(default_factory=list)
    begin: Callable[[], None] | None = None

    def own(self) -> Span | None:
        """Its own span, if it has one, begun by now."""
        if self.begin is not None:
            begin, self.begin = self.begin, None
            begin()
        return self.span

    @property
    def inner(self) -> Span | None:
        """The span that what happens in it hangs under."""
        return self.own() or self.base

    def within(self, other: Place) -> bool:
        """Whether ``other`` is this place or one above it."""
        return self is other or (self.above is not None and self.above.within(other))

    def start(self, kind: SpanKind, name: str, attributes: dict[str, Any], agent: str | None = None) -> Span:
        """The place's own span, which begins now."""
        self.span = self.recorder.start(kind, name, parent=self.base, agent=agent, attributes=attributes)
        return self.span


def enter(id: str, above_id: str | None) -> Place | None:
    """The place of a span of the SDK that begins under another or in a trace, or of a trace; None outside of a rollout.

    This and what it calls runs for every span of the SDK, and is flat to be fast.
    """
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    places: dict[str, Place] | None = recorder.adapter_state.get(SCRATCH)
    if places is None:
        places = recorder.adapter_state[SCRATCH] = {}
    above = places.get(above_id) if above_id is not None else None
    base = innermost(above.inner) if above is not None else locate(recorder)
    place = places[id] = Place(recorder, above, base, sys.exc_info()[1])
    return place


def place_of(id: str) -> Place | None:
    """The place of a trace or span of the SDK in the current rollout; several rollouts may have traces of one id."""
    recorder = current()
    return recorder.adapter_state.get(SCRATCH, {}).get(id) if recorder is not None else None


def locator(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: the expected call, else the tool, guardrail, turn or
    agent that is running; None outside of the SDK."""
    span = get_current_span()
    trace = get_current_trace() if span is None else None
    if span is None and trace is None:
        return None
    id = span.span_id if span is not None else trace.trace_id
    place = recorder.adapter_state.get(SCRATCH, {}).get(id)
    if place is None:
        _warn_of_lost_processor() if id != NO_ID else _warn_of_disabled_tracing()
        return None
    over = place.inner
    if over is not None and over.kind == "llm" and not recorder.expects_call(over):
        over = place.base
    return over


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
