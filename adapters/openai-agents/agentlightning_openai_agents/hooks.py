"""The SDK's tracing → spans.

workflow    a trace: one run of an agent, or what a ``with trace(…)`` of the user's holds
agent       an agent, from its first turn to its answer or hand-over
turn        a model call and the tools it asks for
guardrail   a guardrail of an agent's input or output
tool        a tool, also of an MCP server, a shell, a computer
handoff     a hand-over: its agent is who hands over, its name and ``gen_ai.agent.name`` who takes over
llm         a model call, as announced to the model layer; written here only when that saw no call
annotation  a ``custom_span``, and the listing of an MCP server's tools

No span: the run of an agent (its trace or its tool stands for it), speech and transcription.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from typing import Any
from weakref import WeakSet

from agents.tracing import TracingProcessor, add_trace_processor, get_trace_provider

from agentlightning import semconv
from agentlightning.adapter import guarded
from agentlightning.recording import add_locator, failure_of, remove_locator
from agentlightning.records import Failure, SpanKind
from agentlightning_openai_agents import private, sync_runs
from agentlightning_openai_agents.calls import call_failure, call_name, to_generation
from agentlightning_openai_agents.places import Place, enter, enter_trace, locator, place_of, place_of_trace
from agentlightning_openai_agents.plain import plain
from agentlightning_openai_agents.tools import called

logger = logging.getLogger(__name__)

FAILURES = {
    "MaxTurnsExceeded": "recursion_limit",
    "InputGuardrailTripwireTriggered": "guardrail_tripped",
    "OutputGuardrailTripwireTriggered": "guardrail_tripped",
    "ToolInputGuardrailTripwireTriggered": "guardrail_tripped",
    "ToolOutputGuardrailTripwireTriggered": "guardrail_tripped",
}
"""Types of the failures that the SDK's own exceptions are."""


class RecordingProcessor(TracingProcessor):
    """Writes the traces and spans of the current rollout as spans."""

    installed = False

    def on_trace_start(self, trace: Any) -> None:
        if self.installed:
            _begin_trace(trace)

    def on_trace_end(self, trace: Any) -> None:
        if self.installed:
            _end_trace(trace)

    def on_span_start(self, span: Any) -> None:
        if self.installed:
            _begin(span)

    def on_span_end(self, span: Any) -> None:
        if self.installed:
            _end(span)

    def shutdown(self) -> None:
        """Nothing waits here."""

    def force_flush(self) -> None:
        """Nothing waits here."""


@guarded
def _begin_trace(trace: Any) -> None:
    place = enter_trace(trace)
    if place is not None:
        _start_agent(place, trace.name, "workflow")


@guarded
def _end_trace(trace: Any) -> None:
    place = place_of_trace(trace)
    if place is not None and place.span is not None:
        place.recorder.end(place.span, _failure(place))


@guarded
def _begin(span: Any) -> None:
    place = enter(span)
    if place is None:
        return
    data = span.span_data
    kind = data.type
    if kind == "agent":
        _start_agent(place, data.name, "agent")
    elif kind == "turn":
        _start_agent(place, f"turn {data.turn}", "turn", data.agent_name)
    elif kind in ("response", "generation"):
        _announce(place, data)
    elif kind == "function":
        _start(place, "tool", data.name, {semconv.OPERATION_NAME: "execute_tool", semconv.TOOL_NAME: data.name})
        if place.above is not None:
            place.above.tools.append(span)
        private.watch_errors(span, functools.partial(_note_error, place))
    elif kind == "guardrail":
        _start_agent(place, data.name, "guardrail")
    elif kind == "handoff":
        _start(place, "handoff", data.to_agent or "handoff", {})
    elif kind in ("custom", "mcp_tools"):
        _start(place, "annotation", data.name if kind == "custom" else "mcp_tools", {})


@guarded
def _end(span: Any) -> None:
    place = place_of(span)
    if place is None or place.span is None:
        return
    data = span.span_data
    kind, attributes = data.type, place.span.attributes
    if kind in ("response", "generation"):
        _end_call(place, data)
        return
    if kind == "function":
        attributes.update(called(span, place))
        place.recorder.end(place.span, _tool_failure(place, span))
        return
    if kind == "guardrail":
        attributes[TRIPPED] = data.triggered
    elif kind == "handoff" and data.to_agent:
        place.span.name = attributes[semconv.AGENT_NAME] = data.to_agent
    elif kind == "custom":
        attributes.update(plain(data.data))
    elif kind == "mcp_tools":
        attributes.update(server=data.server, tools=data.result)
    place.recorder.end(place.span, _failure(place))


TRIPPED = "agentlightning.guardrail.tripped"


def _start(place: Place, kind: SpanKind, name: str, attributes: dict[str, Any], agent: str | None = None) -> None:
    place.span = place.recorder.start(kind, name, parent=place.base, agent=agent, attributes=attributes)


def _start_agent(place: Place, name: str, structure: str, agent: str | None = None) -> None:
    attributes = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}
    _start(place, "agent", name, attributes, agent or name)


def _announce(place: Place, data: Any) -> None:
    """Starts the span of a model call, for the model layer to take over when it sees the call."""
    name, attributes = call_name(data)
    _start(place, "llm", name, attributes)
    if place.span is not None:
        place.recorder.announced.add(place.span.id)
    if place.above is not None:
        place.above.call, place.above.tools = place.span, []


def _end_call(place: Place, data: Any) -> None:
    """Writes a model call that nobody took over."""
    span, announced = place.span, place.recorder.announced
    if span is None or span.id not in announced:
        return
    announced.discard(span.id)
    error = _raised(place)
    span.generation = to_generation(data, span.attributes)
    place.recorder.end(span, call_failure(error) if error is not None else None)


def _note_error(place: Place) -> None:
    """The SDK notes an error of a tool: what is being handled here is its exception."""
    error = sys.exc_info()[1]
    if error is not None and error is not place.before:
        place.error = error


def _raised(place: Place) -> BaseException | None:
    """The exception that passes through a place as it ends; not one that was being handled around it before."""
    error = sys.exc_info()[1]
    return error if error is not place.before and not isinstance(error, GeneratorExit) else None


def _failure(place: Place) -> Failure | None:
    error = _raised(place)
    return _typed(error, "agent_error") if error is not None else None


def _tool_failure(place: Place, span: Any) -> Failure | None:
    """A tool's failure, whether its exception passes through or became an answer to the model."""
    raised = _raised(place)
    if isinstance(raised, asyncio.CancelledError):
        return failure_of(raised, "cancelled")
    error = place.error or raised
    if error is not None:
        return _typed(error, "tool_error")
    if span.error is None:
        return None
    told = (span.error.get("data") or {}).get("error")
    return Failure(type="tool_error", message=f"{span.error['message']}{f': {told}' if told else ''}")


def _typed(error: BaseException, type_otherwise: str) -> Failure:
    if isinstance(error, asyncio.CancelledError):
        return failure_of(error, "cancelled")
    return failure_of(error, FAILURES.get(type(error).__name__, type_otherwise))


_processor = RecordingProcessor()
_told_by: WeakSet[Any] = WeakSet()


def install() -> None:
    """Adds the trace processor, once for each provider of traces, and the locator."""
    provider = get_trace_provider()
    if provider not in _told_by:
        add_trace_processor(_processor)
        _told_by.add(provider)
    private.keep_traces_here()
    sync_runs.install()
    _processor.installed = True
    add_locator(locator)


def uninstall() -> None:
    """Makes the processor deaf, removes the locator, and lets the SDK send its traces again."""
    _processor.installed = False
    private.send_traces_again()
    sync_runs.uninstall()
    remove_locator(locator)
