"""CrewAI's events → spans.

crew, flow      agent spans
task            an agent span that bears the name of the agent it is given to
agent           an agent span: an agent at work on a task, or kicked off by itself
node            an agent span: a method of a flow
tool            a tool; a hand-off where it delegates to a coworker
retrieval       a query of memory, or of knowledge
annotation      a guardrail's judgement; something put into memory
llm             a model call that the model layer did not see

One method is wrapped: ``CrewAIEventsBus.emit``, which everything in CrewAI calls, in the context of what has happened.
Handlers that are registered with the bus run in a pool of threads, later and out of order, and cannot know where a
model call is being made. Checked with crewai 1.11.0 and 1.15.30.
"""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes
from agentlightning.patching import Patches
from agentlightning.recording import Recorder, current, guarded
from agentlightning.records import Failure, SpanKind
from agentlightning_crewai import calls
from agentlightning_crewai.adapter import to_plain
from agentlightning_crewai.calls import failure_of_event
from agentlightning_crewai.span_stack import EventFrame, begin, end, find, stack

logger = logging.getLogger(__name__)

MAX_DESCRIPTION = 200
"""Characters of a task's description, which may be very long, that its name is made of."""

_patches = Patches()


def install() -> None:
    """Wraps the event bus, once, and adds the stack's locator. Without a bus that can be wrapped: a warning, and no
    hooks."""
    try:
        from crewai.events.event_bus import CrewAIEventsBus

        _patches.add((CrewAIEventsBus, "emit", _emit))
    except (ImportError, AttributeError) as error:
        logger.warning(
            "CrewAI's event bus cannot be listened to (%s): its agents, tools and hand-offs are not recorded, only "
            "its model calls",
            error,
        )
        return
    stack.install()


def uninstall() -> None:
    """Puts the bus back as it was, and removes the locator."""
    _patches.remove()
    stack.uninstall()


def _emit(emit: Callable[..., Any], bus: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    record(*args, **kwargs)
    return emit(*args, **kwargs)


@guarded
def record(source: Any, event: Any) -> None:
    """Begins or ends the span of an event, in the context in which it was emitted."""
    recorder = current()
    if recorder is None or recorder.closed:
        return
    kind: str = event.type
    if kind.startswith(("flow_", "method_")) and not _is_of_user(source):
        return
    if (start := STARTS.get(kind)) is not None:
        _begin(recorder, source, kind, start(source, event))
    elif (close := ENDS.get(kind)) is not None:
        frame = find(recorder, f"{kind.rpartition('_')[0]}_started", source)
        if frame is not None:
            end(frame, close(frame, event))
        elif kind == "tool_usage_error":
            calls.tool_not_started(recorder, source, event)
    elif (happen := MOMENTS.get(kind)) is not None:
        happen(recorder, source, event)


class Start(NamedTuple):
    """The span that an event begins."""

    kind: SpanKind
    name: str
    attributes: dict[str, Any]
    agent: str | None = None


def _begin(recorder: Recorder, source: Any, event: str, start: Start) -> None:
    around = stack.innermost(recorder) if start.kind == "agent" else None
    if around is not None and around.event == "knowledge_search_query_started":
        end(around)  # no event ends a query for which no question was found
    begin(recorder, event, source, start.kind, start.name, start.attributes, agent=start.agent)


def _agent(structure: str, name: str, agent: str | None = None) -> Start:
    return Start("agent", name, agent_attributes(structure), agent if agent is not None else name)


def _task(task: Any, event: Any) -> Start:
    name = task.name or textwrap.shorten(task.description[:MAX_DESCRIPTION], 60, placeholder=" …") or "task"
    return _agent("task", name, task.agent.role.strip() if task.agent is not None else None)


def _lone_agent(source: Any, event: Any) -> Start:
    return _agent("agent", str(event.agent_info.get("role") or "agent").strip())


def _guardrail(source: Any, event: Any) -> Start:
    name = getattr(event, "guardrail_name", None) or "guardrail"
    return Start("annotation", "guardrail", {semconv.EVALUATION_NAME: name})


def _saving(source: Any, event: Any) -> Start:
    return Start("annotation", "memory_save", {"value": event.value} if event.value is not None else {})


def _is_of_user(flow: Any) -> bool:
    """CrewAI runs agents and memory by flows of its own, too: those of one package alone are the user's."""
    module = type(flow).__module__
    return not module.startswith("crewai.") or module.startswith("crewai.flow")


def _set(frame: EventFrame, attributes: dict[str, Any]) -> None:
    if frame.span is not None:
        frame.span.attributes.update(attributes)


def _ended(frame: EventFrame, event: Any) -> None:
    return None


def _failed(frame: EventFrame, event: Any) -> Failure:
    return failure_of_event(event, "timeout" if isinstance(sys.exception(), TimeoutError) else "agent_error")


def _not_retrieved(frame: EventFrame, event: Any) -> Failure:
    return failure_of_event(event, "retrieval_error")


def _remembered(frame: EventFrame, event: Any) -> None:
    _set(frame, {semconv.RETRIEVAL_DOCUMENTS: to_plain(event.results)})


def _known(frame: EventFrame, event: Any) -> None:
    _set(frame, {semconv.RETRIEVAL_QUERY: event.query, semconv.RETRIEVAL_DOCUMENTS: [event.retrieved_knowledge]})


def _judged(frame: EventFrame, event: Any) -> None:
    reason = {semconv.EVALUATION_EXPLANATION: event.error} if event.error is not None else {}
    _set(frame, {semconv.EVALUATION_SCORE: float(event.success), **reason})


STARTS: dict[str, Callable[[Any, Any], Start]] = {
    "crew_kickoff_started": lambda crew, event: _agent("crew", event.crew_name or "crew"),
    "task_started": _task,
    "agent_execution_started": lambda _, event: _agent("agent", event.agent.role.strip()),
    "lite_agent_execution_started": _lone_agent,
    "flow_started": lambda flow, event: _agent("flow", event.flow_name),
    "method_execution_started": lambda flow, event: _agent("node", event.method_name),
    "memory_query_started": lambda _, event: Start("retrieval", "memory", {semconv.RETRIEVAL_QUERY: event.query}),
    "memory_save_started": _saving,
    "knowledge_search_query_started": lambda _, event: Start("retrieval", "knowledge", {}),
    "llm_guardrail_started": _guardrail,
}

ENDS: dict[str, Callable[[EventFrame, Any], Failure | None]] = {
    "crew_kickoff_completed": _ended,
    "crew_kickoff_failed": _failed,
    "task_completed": _ended,
    "task_failed": _failed,
    "agent_execution_completed": _ended,
    "agent_execution_error": _failed,
    "lite_agent_execution_completed": _ended,
    "lite_agent_execution_error": _failed,
    "flow_finished": _ended,
    "flow_failed": _failed,
    "flow_paused": _ended,
    "method_execution_finished": _ended,
    "method_execution_failed": _failed,
    "method_execution_paused": _ended,
    "tool_usage_finished": calls.tool_finished,
    "tool_usage_error": lambda _, event: failure_of_event(event, "tool_error"),
    "memory_query_completed": _remembered,
    "memory_query_failed": _not_retrieved,
    "memory_save_completed": _ended,
    "memory_save_failed": _not_retrieved,
    "knowledge_search_query_completed": _known,
    "knowledge_search_query_failed": _not_retrieved,
    "llm_guardrail_completed": _judged,
    "llm_call_completed": calls.call_completed,
    "llm_call_failed": calls.call_failed,
}
"""By the type of the event; what it ends was begun by ``…_started``."""

MOMENTS: dict[str, Callable[[Recorder, Any, Any], None]] = {
    "llm_call_started": calls.expect_call,
    "tool_usage_started": calls.begin_tool,
    "tool_selection_error": calls.tool_not_started,
    "tool_validate_input_error": calls.tool_not_started,
    "tool_failure_detected": calls.tool_failure_detected,
}
