"""What CrewAI's events tell of tools: arguments, result, call id, failure; and which tools delegate."""

from __future__ import annotations

import json
import sys
from typing import Any

from agentlightning import semconv
from agentlightning.recording import Recorder, failure_of
from agentlightning.records import Failure
from agentlightning_crewai.places import Place, here, innermost, just_left
from agentlightning_crewai.plain import plain

DELEGATING = ("delegate_work_to_coworker", "ask_question_to_coworker")


def attributes_of(event: Any, coworker: str | None) -> dict[str, Any]:
    """The span's attributes, as far as they are known before the tool runs."""
    attributes = {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: event.tool_name,
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ARGUMENTS: plain(_arguments(event)),
    }
    if coworker is not None:
        attributes[semconv.AGENT_NAME] = coworker
    return attributes


def coworker_of(event: Any) -> str | None:
    """Whom a tool delegates to; None where it is no such tool."""
    if _sanitized(event.tool_name) not in DELEGATING:
        return None
    arguments = _arguments(event)
    given = arguments if isinstance(arguments, dict) else {}
    return str(given.get("coworker") or given.get("co_worker") or "coworker").strip()


def identify(around: Place | None, attributes: dict[str, Any]) -> None:
    """Adds the id of the model's tool call that is carried out: CrewAI's events do not tell it, the last answer of the
    model that was asked in the same place does. Of calls that are equal each is taken once."""
    if around is None or not isinstance(around.answer, list):
        return
    for call in around.answer:
        id, name, arguments = _call(call)
        if not isinstance(id, str) or name != attributes[semconv.TOOL_NAME]:
            continue
        # Tools that run at once ask here at once: `setdefault` gives an id to one of them only.
        is_it = _parsed(arguments) == attributes[semconv.TOOL_CALL_ARGUMENTS]
        if is_it and around.claimed.setdefault(id, attributes) is attributes:
            attributes[semconv.TOOL_CALL_ID] = id
            return


def _call(call: Any) -> tuple[Any, Any, Any]:
    """Id, name and arguments of a tool call, which is an object of the client's or a mapping of CrewAI's."""
    get = call.get if isinstance(call, dict) else lambda name: getattr(call, name, None)
    function = get("function") or call
    inside = function.get if isinstance(function, dict) else lambda name: getattr(function, name, None)
    return get("id"), inside("name"), inside("arguments")


def finished(place: Place, event: Any) -> Failure | None:
    """Keeps a tool's result; a tool that returned, but says that it failed, has failed."""
    if place.span is not None:
        place.span.attributes[semconv.TOOL_CALL_RESULT] = plain(event.output)
    failure = getattr(event, "failure", None)
    return Failure(type="tool_error", message=str(failure.message)) if failure is not None else None


def failed(place: Place, event: Any) -> Failure:
    """The failure of a tool that raised."""
    return _failure(event)


def unstarted(recorder: Recorder, source: Any, event: Any) -> None:
    """A tool that could not be started is a failed span all the same: an unknown name, arguments that are no JSON.
    CrewAI tries several times to make sense of one answer of the model; that is one span."""
    around = here(recorder)
    attributes = attributes_of(event, None)
    identify(around, attributes)
    if event.type == "tool_selection_error":
        del attributes[semconv.TOOL_CALL_ARGUMENTS]  # the event has them empty, whatever they are
    if around is not None:
        asked = attributes.get(semconv.TOOL_CALL_ID) or f"{_sanitized(event.tool_name)} without an id"
        if asked in around.refused:
            return
        around.refused.add(asked)
    span = recorder.start("tool", event.tool_name, parent=innermost(recorder, around), attributes=attributes)
    recorder.end(span, _failure(event))


def detected(recorder: Recorder, source: Any, event: Any) -> None:
    """CrewAI says of every tool that it failed, right after its end, and so it does of one that it did not start."""
    left = just_left()
    span = left.span if left is not None and left.event == "tool_usage_started" else None
    known = span is not None and span.failure is not None and span.attributes[semconv.TOOL_NAME]
    if not known or _sanitized(known) != _sanitized(event.tool_name):
        unstarted(recorder, source, event)


def _failure(event: Any) -> Failure:
    told = event.failure.message if hasattr(event, "failure") else event.error
    error = told if isinstance(told, BaseException) else sys.exception()
    return failure_of(error, "tool_error") if error is not None else Failure(type="tool_error", message=str(told))


def _sanitized(name: str) -> str:
    return name.lower().replace(" ", "_")


def _arguments(event: Any) -> Any:
    return _parsed(event.tool_args)


def _parsed(arguments: Any) -> Any:
    """A mapping where the text of one was given."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
