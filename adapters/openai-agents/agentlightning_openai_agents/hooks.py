"""The SDK's tracing → spans.

workflow    a trace: one run of an agent, or what a ``with trace(…)`` of the user's holds
agent       an agent, from its first turn to its answer or hand-over
turn        a model call and the tools it asks for
guardrail   a guardrail of an agent's input or output
tool        a tool, also of an MCP server, a shell, a computer
handoff     a hand-over: its agent is who hands over, its name and ``gen_ai.agent.name`` who takes over
llm         a model call, as the model layer is told to expect it; written here only when that saw no call
annotation  a ``custom_span``, and the listing of an MCP server's tools

No span: the run of an agent (its trace or its tool stands for it), speech and transcription.
"""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any
from weakref import WeakSet

from agents.tracing import TracingProcessor, add_trace_processor, get_trace_provider

from agentlightning import semconv
from agentlightning.recording import add_locator, failure_of, guarded, remove_locator
from agentlightning.records import Failure, Span
from agentlightning.threads import was_left
from agentlightning_openai.failures import classify
from agentlightning_openai_agents import private, sync_runs
from agentlightning_openai_agents.calls import call_name, to_generation
from agentlightning_openai_agents.places import Place, enter, locator, place_of
from agentlightning_openai_agents.plain import plain
from agentlightning_openai_agents.tools import (
    begin_tool,
    called,
    end_answered_tools,
    end_tool,
    handed_over,
    mark_interrupted,
)

logger = logging.getLogger(__name__)

FAILURES = {
    "MaxTurnsExceeded": "recursion_limit",
    "InputGuardrailTripwireTriggered": "guardrail_tripped",
    "OutputGuardrailTripwireTriggered": "guardrail_tripped",
    "ToolInputGuardrailTripwireTriggered": "guardrail_tripped",
    "ToolOutputGuardrailTripwireTriggered": "guardrail_tripped",
}
"""Types of the failures that the SDK's own exceptions are."""

TRIPPED = "agentlightning.guardrail.tripped"


class RecordingProcessor(TracingProcessor):
    """Writes the traces and spans of the current rollout as spans."""

    installed = False

    @guarded
    def on_trace_start(self, trace: Any) -> None:
        place = enter(trace.trace_id, None) if self.installed else None
        if place is not None:
            _start_agent(place, trace.name, "workflow")

    @guarded
    def on_trace_end(self, trace: Any) -> None:
        place = place_of(trace.trace_id) if self.installed else None
        if place is not None and place.span is not None:
            place.recorder.end(place.span, _failure(place))

    @guarded
    def on_span_start(self, span: Any) -> None:
        place = enter(span.span_id, span.parent_id or span.trace_id) if self.installed else None
        if place is not None:
            _begin(place, span, span.span_data)

    @guarded
    def on_span_end(self, span: Any) -> None:
        place = place_of(span.span_id) if self.installed else None
        ours = place.own() if place is not None else None
        if place is not None and ours is not None:
            _end(place, ours, span, span.span_data)

    def shutdown(self) -> None:
        """Nothing waits here."""

    def force_flush(self) -> None:
        """Nothing waits here."""


def _begin(place: Place, span: Any, data: Any) -> None:
    kind, place.data = data.type, data
    if kind == "turn":
        _start_agent(place, f"turn {data.turn}", "turn", data.agent_name)
    elif kind in ("response", "generation"):
        _announce(place, data)
    elif kind == "agent" or kind == "guardrail":
        _start_agent(place, data.name, kind)
    elif kind == "function":
        begin_tool(place)
        if place.above is not None:
            place.above.tools.append(span)
        private.watch_errors(span, functools.partial(_note_error, place))
    elif kind == "handoff":
        place.start("handoff", data.to_agent or "handoff", {})
    elif kind in ("custom", "mcp_tools"):
        place.start("annotation", data.name if kind == "custom" else "mcp_tools", {})


def _end(place: Place, ours: Span, span: Any, data: Any) -> None:
    kind = data.type
    if kind in ("response", "generation"):
        _end_call(place, ours, data)
        end_answered_tools(place.recorder, ours)
        return
    if kind == "function":
        ours.attributes.update(called(span, place))
        end_tool(place, ours, _tool_failure(place, span))
        return
    if kind == "agent":
        mark_interrupted(place)
    elif kind == "guardrail":
        ours.attributes[TRIPPED] = data.triggered
    elif kind == "handoff" and data.to_agent:
        ours.name = data.to_agent
        ours.attributes.update(handed_over(place), **{semconv.AGENT_NAME: data.to_agent})
    elif kind == "custom":
        ours.attributes.update(plain(data.data))
    elif kind == "mcp_tools":
        ours.attributes.update(server=data.server, tools=data.result)
    place.recorder.end(ours, _failure(place))


def _start_agent(place: Place, name: str, structure: str, agent: str | None = None) -> None:
    attributes = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}
    place.start("agent", name, attributes, agent or name)


def _announce(place: Place, data: Any) -> None:
    """Starts the span of a model call, for the model layer to take over when it sees the call."""
    span = place.start("llm", *call_name(data))
    place.recorder.expect_call(span)
    if place.above is not None:
        place.above.call, place.above.tools = span, []


def _end_call(place: Place, span: Span, data: Any) -> None:
    """Writes a model call that nobody took over."""
    if place.recorder.take_expected_call(span) is None:
        return
    error = _raised(place)
    span.generation = to_generation(data, span.attributes)
    place.recorder.end(span, classify(error) if error is not None else None)


def _note_error(place: Place) -> None:
    """The SDK notes an error of a tool: what is being handled here is its exception."""
    error = sys.exc_info()[1]
    if error is not None and error is not place.before:
        place.error = error


def _raised(place: Place) -> BaseException | None:
    """The exception that passes through a place as it ends; not one that was being handled around it before."""
    error = sys.exc_info()[1]
    return error if error is not place.before and not was_left(error) else None


def _failure(place: Place) -> Failure | None:
    error = _raised(place)
    return _typed(error, "agent_error") if error is not None else None


def _tool_failure(place: Place, span: Any) -> Failure | None:
    """A tool's failure, whether its exception passes through or became an answer to the model."""
    raised = _raised(place)
    was_stopped = raised is not None and not isinstance(raised, Exception)
    error = raised if was_stopped else place.error or raised
    if error is not None:
        return _typed(error, "tool_error")
    if span.error is None:
        return None
    told = (span.error.get("data") or {}).get("error")
    return Failure(type="tool_error", message=f"{span.error['message']}{f': {told}' if told else ''}")


def _typed(error: BaseException, type_otherwise: str) -> Failure:
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
