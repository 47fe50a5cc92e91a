"""CrewAI's events → spans.

crew, flow      agent spans
task            an agent span that bears the name of the agent it is given to
agent           an agent span: an agent at work on a task, or kicked off by itself
node            an agent span: a method of a flow
tool            a tool; a hand-off where it delegates to a coworker
retrieval       a query of memory, or of knowledge
annotation      a guardrail's judgement; something put into memory
llm             a model call that the model layer did not see
"""

from __future__ import annotations

import logging
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from agentlightning import semconv
from agentlightning.recording import Recorder, current, failure_of
from agentlightning.records import Failure, SpanKind
from agentlightning_crewai import calls, tools
from agentlightning_crewai.places import Place, enter, find, here, innermost, leave
from agentlightning_crewai.plain import plain

logger = logging.getLogger(__name__)

LOOKED_AT = 200
"""Characters of a task's description, which may be very long, that its name is made of."""
FRAMEWORK = "crewai."
OF_FLOWS = ("flow_", "method_")
FLOWS_OF_USERS = "crewai.flow"
"""The one package of CrewAI's whose flows are the user's; the others run agents and memory by flows of their own."""


class Begun(NamedTuple):
    """What a starting event tells."""

    kind: SpanKind
    name: str
    agent: str | None
    attributes: dict[str, Any]


def seen(source: Any, event: Any) -> None:
    """Takes an event of a type in `TOLD`, in the context in which it was emitted."""
    recorder = current()
    if recorder is None or recorder.closed:
        return
    kind = event.type
    if kind == "llm_call_started":
        calls.announce(recorder, source, event)
    elif kind.startswith(OF_FLOWS) and not _is_of_user(source):
        return
    elif (ends := ENDS.get(kind)) is not None:
        started, close = ends
        place = find(recorder, started, source)
        if place is not None:
            leave(place, close(place, event))
        elif kind == "tool_usage_error":
            tools.unstarted(recorder, source, event)
    elif (begins := STARTS.get(kind)) is not None:
        _begin(recorder, source, kind, begins(source, event))
    elif (happens := MOMENTS.get(kind)) is not None:
        happens(recorder, source, event)


def _begin(recorder: Recorder, source: Any, event: str, begun: Begun) -> None:
    around = here(recorder)
    if around is not None and around.event == "knowledge_search_query_started" and begun.kind == "agent":
        leave(around)  # no event says that no question for the knowledge was found
        around = here(recorder)
    if begun.kind in ("tool", "handoff"):
        tools.identify(around, begun.attributes)
    parent = innermost(recorder, around)
    span = recorder.start(begun.kind, begun.name, parent=parent, agent=begun.agent, attributes=begun.attributes)
    enter(Place(event, source, recorder, span, around))


def _structure(structure: str, name: str, agent: str | None = None) -> Begun:
    attributes = {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}
    return Begun("agent", name, agent if agent is not None else name, attributes)


def _crew(source: Any, event: Any) -> Begun:
    return _structure("crew", event.crew_name or "crew")


def _task(source: Any, event: Any) -> Begun:
    name = source.name or textwrap.shorten(source.description[:LOOKED_AT], 60, placeholder=" …") or "task"
    return _structure("task", name, source.agent.role.strip() if source.agent is not None else None)


def _agent(source: Any, event: Any) -> Begun:
    return _structure("agent", event.agent.role.strip())


def _lone_agent(source: Any, event: Any) -> Begun:
    return _structure("agent", str(event.agent_info.get("role") or "agent").strip())


def _flow(source: Any, event: Any) -> Begun:
    return _structure("flow", event.flow_name)


def _method(source: Any, event: Any) -> Begun:
    return _structure("node", event.method_name)


def _is_of_user(flow: Any) -> bool:
    module = type(flow).__module__
    return not module.startswith(FRAMEWORK) or module.startswith(FLOWS_OF_USERS)


def _tool(source: Any, event: Any) -> Begun:
    coworker = tools.coworker_of(event)
    kind: SpanKind = "handoff" if coworker is not None else "tool"
    return Begun(kind, coworker or event.tool_name, None, tools.attributes_of(event, coworker))


def _memory(source: Any, event: Any) -> Begun:
    return Begun("retrieval", "memory", None, {semconv.RETRIEVAL_QUERY: event.query})


def _remembering(source: Any, event: Any) -> Begun:
    return Begun("annotation", "memory_save", None, {"value": event.value} if event.value is not None else {})


def _knowledge(source: Any, event: Any) -> Begun:
    return Begun("retrieval", "knowledge", None, {})


def _guardrail(source: Any, event: Any) -> Begun:
    name = getattr(event, "guardrail_name", None) or "guardrail"
    return Begun("annotation", "guardrail", None, {semconv.EVALUATION_NAME: name})


def _tell(place: Place, attributes: dict[str, Any]) -> None:
    if place.span is not None:
        place.span.attributes.update(attributes)


def _nothing(place: Place, event: Any) -> None:
    return None


def _failed(place: Place, event: Any) -> Failure:
    """The exception that is being handled where the event is emitted, else what the event says of it."""
    error = sys.exception()
    if isinstance(error, TimeoutError):
        return failure_of(error, "timeout")
    return failure_of(error) if error is not None else Failure(type="agent_error", message=str(event.error))


def _found(place: Place, event: Any) -> None:
    _tell(place, {semconv.RETRIEVAL_DOCUMENTS: plain(event.results)})


def _known(place: Place, event: Any) -> None:
    _tell(place, {semconv.RETRIEVAL_QUERY: event.query, semconv.RETRIEVAL_DOCUMENTS: [event.retrieved_knowledge]})


def _not_found(place: Place, event: Any) -> Failure:
    error = sys.exception()
    if error is not None:
        return failure_of(error, "retrieval_error")
    return Failure(type="retrieval_error", message=str(event.error))


def _judged(place: Place, event: Any) -> None:
    why = {semconv.EVALUATION_EXPLANATION: event.error} if event.error is not None else {}
    _tell(place, {semconv.EVALUATION_SCORE: float(event.success), **why})


MOMENTS: dict[str, Callable[[Recorder, Any, Any], None]] = {
    "tool_selection_error": tools.unstarted,
    "tool_validate_input_error": tools.unstarted,
    "tool_failure_detected": tools.detected,
}

STARTS: dict[str, Callable[[Any, Any], Begun]] = {
    "crew_kickoff_started": _crew,
    "task_started": _task,
    "agent_execution_started": _agent,
    "lite_agent_execution_started": _lone_agent,
    "flow_started": _flow,
    "method_execution_started": _method,
    "tool_usage_started": _tool,
    "memory_query_started": _memory,
    "memory_save_started": _remembering,
    "knowledge_search_query_started": _knowledge,
    "llm_guardrail_started": _guardrail,
}

ENDS: dict[str, tuple[str, Callable[[Place, Any], Failure | None]]] = {
    "crew_kickoff_completed": ("crew_kickoff_started", _nothing),
    "crew_kickoff_failed": ("crew_kickoff_started", _failed),
    "task_completed": ("task_started", _nothing),
    "task_failed": ("task_started", _failed),
    "agent_execution_completed": ("agent_execution_started", _nothing),
    "agent_execution_error": ("agent_execution_started", _failed),
    "lite_agent_execution_completed": ("lite_agent_execution_started", _nothing),
    "lite_agent_execution_error": ("lite_agent_execution_started", _failed),
    "flow_finished": ("flow_started", _nothing),
    "flow_failed": ("flow_started", _failed),
    "flow_paused": ("flow_started", _nothing),
    "method_execution_finished": ("method_execution_started", _nothing),
    "method_execution_failed": ("method_execution_started", _failed),
    "method_execution_paused": ("method_execution_started", _nothing),
    "tool_usage_finished": ("tool_usage_started", tools.finished),
    "tool_usage_error": ("tool_usage_started", tools.failed),
    "memory_query_completed": ("memory_query_started", _found),
    "memory_query_failed": ("memory_query_started", _not_found),
    "memory_save_completed": ("memory_save_started", _nothing),
    "memory_save_failed": ("memory_save_started", _not_found),
    "knowledge_search_query_completed": ("knowledge_search_query_started", _known),
    "knowledge_search_query_failed": ("knowledge_search_query_started", _not_found),
    "llm_guardrail_completed": ("llm_guardrail_started", _judged),
    "llm_call_completed": ("llm_call_started", calls.completed),
    "llm_call_failed": ("llm_call_started", calls.failed),
}

TOLD = frozenset({"llm_call_started", *STARTS, *ENDS, *MOMENTS})
"""The types of the events that `seen` takes; the others are none of its business."""
