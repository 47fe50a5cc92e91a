"""The SDK's tracing → spans.

workflow    a trace: one run of an agent, or what a ``with trace(…)`` of the user's holds
agent       an agent, from its first turn to its answer or hand-over
turn        a model call and the tools it asks for
guardrail   a guardrail of an agent's input or output
tool        a tool, also of an MCP server, a shell, a computer
handoff     a hand-over: its agent is who hands over, its name and ``gen_ai.agent.name`` who takes over
llm         a model call, which the model layer is told to expect; written here only when that saw no call
annotation  a ``custom_span``, and the listing of an MCP server's tools

No span: the run of an agent (its trace or its tool stands for it), speech and transcription.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from agents import Runner
from agents.tracing import TracingProcessor, add_trace_processor, get_trace_provider

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes
from agentlightning.patching import Patches
from agentlightning.recording import current, failure_of, guarded
from agentlightning.records import Failure, Span
from agentlightning.threads import run_on_process_loop, was_left
from agentlightning_openai.failures import classify
from agentlightning_openai_agents import internals
from agentlightning_openai_agents.adapter import to_plain
from agentlightning_openai_agents.calls import (
    begin_tool,
    call_name,
    end_answered_tools,
    end_tool,
    ended_attributes,
    handoff_attributes,
    mark_interrupted,
    to_generation,
)
from agentlightning_openai_agents.span_stack import TraceFrame, begin, frame_of, stack

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
    """Writes the traces and spans of the current rollout as spans, while it is ``enabled``: the SDK cannot unregister a
    processor."""

    enabled = False

    @guarded
    def on_trace_start(self, trace: Any) -> None:
        frame = begin(trace.trace_id, None) if self.enabled else None
        if frame is not None:
            _start_agent(frame, trace.name, "workflow")

    @guarded
    def on_trace_end(self, trace: Any) -> None:
        frame = frame_of(trace.trace_id) if self.enabled else None
        if frame is not None and frame.span is not None:
            frame.recorder.end(frame.span, _failure(frame))

    @guarded
    def on_span_start(self, span: Any) -> None:
        frame = begin(span.span_id, span.parent_id or span.trace_id) if self.enabled else None
        if frame is not None:
            _begin(frame, span, span.span_data)

    @guarded
    def on_span_end(self, span: Any) -> None:
        frame = frame_of(span.span_id) if self.enabled else None
        ours = frame.started() if frame is not None else None
        if frame is not None and ours is not None:
            _end(frame, ours, span, span.span_data)

    def shutdown(self) -> None:
        """Nothing waits here."""

    def force_flush(self) -> None:
        """Nothing waits here."""


def _begin(frame: TraceFrame, span: Any, data: Any) -> None:
    kind, frame.data = data.type, data
    if kind == "turn":
        _start_agent(frame, f"turn {data.turn}", "turn", data.agent_name)
    elif kind in ("response", "generation"):
        _expect_call(frame, data)
    elif kind == "agent" or kind == "guardrail":
        _start_agent(frame, data.name, kind)
    elif kind == "function":
        begin_tool(frame)
        if frame.parent is not None:
            frame.parent.tools.append(span)
        internals.watch_errors(span, functools.partial(_keep_error, frame))
    elif kind == "handoff":
        frame.start("handoff", data.to_agent or "handoff", {})
    elif kind in ("custom", "mcp_tools"):
        frame.start("annotation", data.name if kind == "custom" else "mcp_tools", {})


def _end(frame: TraceFrame, ours: Span, span: Any, data: Any) -> None:
    kind = data.type
    if kind in ("response", "generation"):
        _end_call(frame, ours, data)
        end_answered_tools(frame.recorder, ours)
        return
    if kind == "function":
        ours.attributes.update(ended_attributes(span, frame))
        end_tool(frame, ours, _tool_failure(frame, span))
        return
    if kind == "agent":
        mark_interrupted(frame)
    elif kind == "guardrail":
        ours.attributes[TRIPPED] = data.triggered
    elif kind == "handoff" and data.to_agent:
        ours.name = data.to_agent
        ours.attributes.update(handoff_attributes(frame), **{semconv.AGENT_NAME: data.to_agent})
    elif kind == "custom":
        ours.attributes.update(to_plain(data.data))
    elif kind == "mcp_tools":
        ours.attributes.update(server=data.server, tools=data.result)
    frame.recorder.end(ours, _failure(frame))


def _start_agent(frame: TraceFrame, name: str, structure: str, agent: str | None = None) -> None:
    frame.start("agent", name, agent_attributes(structure), agent or name)


def _expect_call(frame: TraceFrame, data: Any) -> None:
    """Starts the span of a model call, for the model layer to take when it sees the call."""
    span = frame.start("llm", *call_name(data))
    frame.recorder.expect_call(span)
    if frame.parent is not None:
        frame.parent.call, frame.parent.tools = span, []


def _end_call(frame: TraceFrame, span: Span, data: Any) -> None:
    """Writes a model call that nobody has taken."""
    if frame.recorder.take_expected_call(span) is None:
        return
    error = _raised(frame)
    span.generation = to_generation(data, span.attributes)
    frame.recorder.end(span, classify(error) if error is not None else None)


def _keep_error(frame: TraceFrame) -> None:
    """The SDK sets an error of a tool: what is being handled here is its exception."""
    error = sys.exc_info()[1]
    if error is not None and error is not frame.error_around:
        frame.error = error


def _raised(frame: TraceFrame) -> BaseException | None:
    """The exception that passes through a frame as it ends; not one that was being handled around it before."""
    error = sys.exc_info()[1]
    return error if error is not frame.error_around and not was_left(error) else None


def _failure(frame: TraceFrame) -> Failure | None:
    error = _raised(frame)
    return _typed(error, "agent_error") if error is not None else None


def _tool_failure(frame: TraceFrame, span: Any) -> Failure | None:
    """A tool's failure, whether its exception passes through or became an answer to the model."""
    raised = _raised(frame)
    was_stopped = raised is not None and not isinstance(raised, Exception)
    error = raised if was_stopped else frame.error or raised
    if error is not None:
        return _typed(error, "tool_error")
    if span.error is None:
        return None
    detail = (span.error.get("data") or {}).get("error")
    return Failure(type="tool_error", message=f"{span.error['message']}{f': {detail}' if detail else ''}")


def _typed(error: BaseException, type_otherwise: str) -> Failure:
    return failure_of(error, FAILURES.get(type(error).__name__, type_otherwise))


def _run_sync(run_sync: Callable[..., Any], runner: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``Runner.run_sync`` in a rollout: on the process's one event loop. Rollouts that are plain functions run in
    threads, each of which would have a loop of its own; and an ``openai`` client that has seen one loop fails on
    another."""
    if current() is None or _in_event_loop():
        return run_sync(*args, **kwargs)
    return run_on_process_loop(runner.run(*args, **kwargs))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_processor = RecordingProcessor()
_registered_with: WeakSet[Any] = WeakSet()
_patches = Patches()


def install() -> None:
    """Registers the trace processor, once with each provider of traces, and adds the locator."""
    provider = get_trace_provider()
    if provider not in _registered_with:
        add_trace_processor(_processor)
        _registered_with.add(provider)
    internals.keep_traces_here()
    _patches.add((Runner, "run_sync", _run_sync))
    _processor.enabled = True
    stack.install()


def uninstall() -> None:
    """Switches the processor off, lets the SDK send its traces again, and removes the locator."""
    _processor.enabled = False
    internals.send_traces_again()
    _patches.remove()
    stack.uninstall()
