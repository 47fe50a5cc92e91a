"""Model calls: announced to the model layer, and written as text where that does not see them (another provider's
client, a local model)."""

from __future__ import annotations

import sys
from typing import Any

from agentlightning import semconv
from agentlightning.recording import Recorder, failure_of
from agentlightning.records import Failure, Generation, Span, Usage
from agentlightning_crewai.places import Place
from agentlightning_crewai.plain import plain

STATUS_TYPES = {
    401: "authentication_failed",
    403: "authentication_failed",
    408: "timeout",
    429: "rate_limited",
    **dict.fromkeys(range(500, 600), "engine_unavailable"),
}
"""Failure types of the HTTP status that providers' exceptions carry as ``status_code``."""


def announce(recorder: Recorder, parent: Span | None, event: Any) -> Span:
    """The span of a call that is about to be made, for the model layer to take over when it sees the call."""
    known = {
        semconv.OPERATION_NAME: "chat",
        semconv.REQUEST_MODEL: event.model,
        semconv.REQUEST_TEMPERATURE: getattr(event, "temperature", None),
        semconv.REQUEST_MAX_TOKENS: getattr(event, "max_tokens", None),
    }
    attributes = {key: value for key, value in known.items() if value is not None}
    span = recorder.start("llm", f"chat {event.model or ''}".rstrip(), parent=parent, attributes=attributes)
    recorder.announced.add(span.id)
    return span


def completed(place: Place, event: Any) -> None:
    """Writes the answer of a call that nobody took over."""
    if not _is_unseen(place):
        return
    span, said = place.span, _asked(place)
    span.generation, response = said, plain(event.response)
    if isinstance(response, list):
        said.response = {"role": "assistant", "content": None, "tool_calls": response}
    else:
        said.response = {"role": "assistant", "content": str(response)}
    said.finish_reason = getattr(event, "finish_reason", None)
    usage = getattr(event, "usage", None) or {}
    counted = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    if isinstance(counted[0], int) and isinstance(counted[1], int):
        said.usage = Usage(input_tokens=counted[0], output_tokens=counted[1])
        span.attributes[semconv.USAGE_INPUT_TOKENS], span.attributes[semconv.USAGE_OUTPUT_TOKENS] = counted


def failed(place: Place, event: Any) -> Failure | None:
    """The failure of a call that nobody took over."""
    if not _is_unseen(place):
        return None
    place.span.generation = _asked(place)
    error = sys.exception()
    if error is None:
        return Failure(type="agent_error", message=str(event.error))
    status = getattr(error, "status_code", None)
    kind = STATUS_TYPES.get(status) if isinstance(status, int) else None
    if kind is None and isinstance(error, TimeoutError | ConnectionError):
        kind = "timeout" if isinstance(error, TimeoutError) else "engine_unavailable"
    return failure_of(error, kind, "infrastructure") if kind is not None else failure_of(error)


def _asked(place: Place) -> Generation:
    """What the model was asked."""
    event = place.request
    messages = event.messages
    return Generation(
        messages=[{"role": "user", "content": messages}] if isinstance(messages, str) else plain(messages or []),
        tools=[tool for tool in plain(event.tools or []) if isinstance(tool, dict)],
        model=event.model,
        temperature=place.span.attributes.get(semconv.REQUEST_TEMPERATURE, 1.0),
    )


def _is_unseen(place: Place) -> bool:
    """Whether the call's span is still announced; it is not any more after this."""
    unseen = place.span.id in place.recorder.announced
    place.recorder.announced.discard(place.span.id)
    return unseen
