"""What an error of a received span means as a typed failure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.adapterkit.failures import CONTEXT_LENGTH, type_of_status
from agentlightning.records import Failure, Fault, SpanKind
from agentlightning_otel.conventions import FAULT

_INFRASTRUCTURE = (
    *("rate_limited", "timeout", "engine_unavailable", "authentication_failed", "not_found", "invalid_response"),
)
_KNOWN_TYPES = (
    *(*_INFRASTRUCTURE, "context_too_long", "bad_request", "cancelled", "tool_error", "retrieval_error", "agent_error"),
)
"""Types of failures, as adapters write them."""
_TYPE_OF_ERROR = {
    "rate_limited": r"rate[_ ]?limit|throttl|too[_ ]?many[_ ]?requests|quota|exhausted",
    "timeout": r"time[_ ]?d?[_ ]?out|deadline",
    "authentication_failed": r"auth|permission|forbidden|api[_ ]?key",
    "not_found": r"not[_ ]?found",
    "bad_request": r"bad[_ ]?request|invalid[_ ]?(request|argument)|unprocessable",
    "engine_unavailable": r"connect|unavailable|overloaded|(internal|server)[_ ]?(server)?[_ ]?error",
    "cancelled": r"cancel",
}
"""Type of failure of a model call → the name of the error, the first that fits."""
_TYPE_OF_KIND = {"tool": "tool_error", "retrieval": "retrieval_error"}


def failure_of_span(
    kind: SpanKind, failed: bool, message: str, attributes: Mapping[str, Any], exceptions: Iterable[Mapping[str, Any]]
) -> Failure | None:
    """The failure of a span that ``failed`` by its status or has an ``error.type``; None for any other.

    ``exceptions`` are the attributes of its exception events: one without a failed status was handled.
    """
    error = attributes.get(semconv.ERROR_TYPE)
    if not failed and error is None:
        return None
    raised: Mapping[str, Any] = next(reversed([*exceptions]), {})
    exception = str(raised.get("exception.type", ""))
    text = message or str(raised.get("exception.message", "")) or str(error or "failed")
    type, fault = _type_and_fault(kind, str(error or exception), text, attributes.get(FAULT))
    return Failure(
        type=type,
        message=text,
        fault=fault,
        exception=exception or (str(error) if error is not None and str(error) != type else None),
        traceback=raised.get("exception.stacktrace"),
    )


def _type_and_fault(kind: SpanKind, error: str, text: str, fault: Any) -> tuple[str, Fault]:
    if fault == "agent" or fault == "infrastructure":
        return error, fault
    if kind == "llm":
        type = error if error in _KNOWN_TYPES else _type_of_model_error(error, text)
        return type, "infrastructure" if type in _INFRASTRUCTURE else "agent"
    if re.search(r"cancel", error, re.IGNORECASE):
        return "cancelled", "agent"
    if kind in _TYPE_OF_KIND:
        return _TYPE_OF_KIND[kind], "agent"
    return error if error in _KNOWN_TYPES else "agent_error", "agent"


def _type_of_model_error(error: str, text: str) -> str:
    if CONTEXT_LENGTH.search(f"{error} {text}"):
        return "context_too_long"
    if error.isdecimal():
        return type_of_status(int(error))[0]
    found = (type for type, pattern in _TYPE_OF_ERROR.items() if re.search(pattern, error, re.IGNORECASE))
    return next(found, "agent_error")
