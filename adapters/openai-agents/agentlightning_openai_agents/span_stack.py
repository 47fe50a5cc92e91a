"""Where in a run of the SDK the code that runs here belongs: the SDK's own tracing knows it.

A frame is kept for each trace and span of the SDK as long as its rollout lives, so that what has no span of ours (the
run of an agent, speech) leads to the nearest one above.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.tracing import get_current_span, get_current_trace

from agentlightning.adapterkit.span_stack import Frame, SpanStack
from agentlightning.recording import Recorder, current, innermost, locate
from agentlightning.records import Span, SpanKind

logger = logging.getLogger(__name__)

STATE = "openai-agents"
DISABLED_ID = "no-op"
"""The id of every span and trace of the SDK while tracing is disabled."""


@dataclass(eq=False)
class TraceFrame(Frame):
    """A trace or a span of the SDK that runs, or ran.

    ``data`` is the SDK's span data; ``error_around`` is the exception that was being handled around it when it
    began, ``error`` the one that the SDK handled inside of it. ``call`` is the model call made last directly in it,
    ``tools`` are the SDK's spans of the tools run since then. ``start_later`` starts the span of a tool that may go on
    after an approval: which one it is, its arguments tell, and they are known a little later.
    """

    data: Any = None
    error_around: BaseException | None = None
    error: BaseException | None = None
    call: Span | None = None
    tools: list[Any] = field(default_factory=list)
    start_later: Callable[[], None] | None = None

    @property
    def inner(self) -> Span | None:
        self.started()
        return super().inner

    def started(self) -> Span | None:
        """Its own span, if it has one, started by now."""
        if self.start_later is not None:
            start, self.start_later = self.start_later, None
            start()
        return self.span

    def start(self, kind: SpanKind, name: str, attributes: dict[str, Any], agent: str | None = None) -> Span:
        """Starts its own span."""
        self.span = self.recorder.start(kind, name, parent=self.base, agent=agent, attributes=attributes)
        return self.span


def begin(id: str, parent_id: str | None) -> TraceFrame | None:
    """The frame of a trace, or of a span that begins under another or in a trace; None outside of a rollout.

    This and what it calls runs for every span of the SDK, and is flat to be fast.
    """
    recorder = current()
    if recorder is None or recorder.closed:
        return None
    frames: dict[str, TraceFrame] | None = recorder.adapter_state.get(STATE)
    if frames is None:
        frames = recorder.adapter_state[STATE] = {}
    parent = frames.get(parent_id) if parent_id is not None else None
    base = innermost(parent.inner) if parent is not None else locate(recorder)
    frame = frames[id] = TraceFrame(recorder, parent, base, error_around=sys.exc_info()[1])
    return frame


def frame_of(id: str) -> TraceFrame | None:
    """The frame of a trace or span of the SDK in the current rollout; several rollouts may have traces of one id."""
    recorder = current()
    return recorder.adapter_state.get(STATE, {}).get(id) if recorder is not None else None


def _find(recorder: Recorder) -> TraceFrame | None:
    if (span := get_current_span()) is not None:
        id = span.span_id
    elif (trace := get_current_trace()) is not None:
        id = trace.trace_id
    else:
        return None
    frame: TraceFrame | None = recorder.adapter_state.get(STATE, {}).get(id)
    if frame is None:
        _warn_of_lost_processor() if id != DISABLED_ID else _warn_of_disabled_tracing()
    return frame


stack = SpanStack[TraceFrame](STATE, _find)


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
