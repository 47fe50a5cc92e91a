"""Model calls. The model layer records those that it sees; those that it does not (another provider's client, a local
model) are written as text, with what CrewAI says of them."""

from __future__ import annotations

import sys
from typing import Any

from agentlightning import semconv
from agentlightning.recording import Recorder, failure_of
from agentlightning.records import Failure, Generation, Usage
from agentlightning_crewai.places import Place, enter, here, innermost
from agentlightning_crewai.plain import plain

STATUS_TYPES = {
    401: "authentication_failed",
    403: "authentication_failed",
    408: "timeout",
    429: "rate_limited",
    **dict.fromkeys(range(500, 600), "engine_unavailable"),
}
"""Failure types of the HTTP status that providers' exceptions carry as ``status_code``."""


def announce(recorder: Recorder, source: Any, event: Any) -> None:
    """Starts the span of a model call, for the model layer to take over when it sees the call."""
    around = here(recorder)
    said, attributes = _asked(event)
    name = f"chat {said.model or ''}".rstrip()
    span = recorder.start("llm", name, parent=innermost(recorder, around), attributes=attributes)
    recorder.expect_call(span)
    enter(Place(event.type, source, recorder, span, around, request=event))


def completed(place: Place, event: Any) -> None:
    """Keeps the answer for the tools that it calls; writes the call where nobody saw it."""
    if place.parent is not None:
        place.parent.answered(event.response)
    if place.span is None or not place.is_expected:
        return
    said, _ = _asked(place.request)
    attributes = place.span.attributes
    response = plain(event.response)
    if isinstance(response, list):
        said.response = {"role": "assistant", "content": None, "tool_calls": response}
    else:
        said.response = {"role": "assistant", "content": str(response)}
    said.finish_reason = getattr(event, "finish_reason", None)
    usage = getattr(event, "usage", None) or {}
    counted = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if isinstance(counted[0], int) and isinstance(counted[1], int):
        said.usage = Usage(input_tokens=counted[0], output_tokens=counted[1])
        attributes[semconv.USAGE_INPUT_TOKENS], attributes[semconv.USAGE_OUTPUT_TOKENS] = counted
    place.span.generation = said


def failed(place: Place, event: Any) -> Failure | None:
    """The failure of a call that nobody saw."""
    if place.span is None or not place.is_expected:
        return None
    place.span.generation = _asked(place.request)[0]
    return _failure(event)


def _failure(event: Any) -> Failure:
    error = sys.exception()
    if error is None:
        return Failure(type="agent_error", message=str(event.error))
    status = getattr(error, "status_code", None)
    kind = STATUS_TYPES.get(status) if isinstance(status, int) else None
    if kind is None and isinstance(error, TimeoutError | ConnectionError):
        kind = "timeout" if isinstance(error, TimeoutError) else "engine_unavailable"
    return failure_of(error, kind, "infrastructure") if kind is not None else failure_of(error)


def _asked(event: Any) -> tuple[Generation, dict[str, Any]]:
    """What the model was asked, and the span's attributes, as far as they are known before the answer."""
    known = {
        semconv.OPERATION_NAME: "chat",
        semconv.REQUEST_MODEL: event.model,
        semconv.REQUEST_TEMPERATURE: getattr(event, "temperature", None),
        semconv.REQUEST_MAX_TOKENS: getattr(event, "max_tokens", None),
    }
    attributes = {key: value for key, value in known.items() if value is not None}
    messages = event.messages
    said = Generation(
        messages=[{"role": "user", "content": messages}] if isinstance(messages, str) else plain(messages or []),
        tools=[tool for tool in plain(event.tools or []) if isinstance(tool, dict)],
        model=event.model,
        temperature=attributes.get(semconv.REQUEST_TEMPERATURE, 1.0),
    )
    return said, attributes
