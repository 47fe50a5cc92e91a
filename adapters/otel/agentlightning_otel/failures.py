"""What an error of a received span means as a typed failure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.records import Failure, Fault, SpanKind
from agentlightning_otel.conventions import FAULT

_INFRASTRUCTURE = (
    "rate_limited",
    "timeout",
    "engine_unavailable",
    "authentication_failed",
    "not_found",
    "invalid_response",
)
_WORDS = (
    *_INFRASTRUCTURE,
    "context_too_long",
    "bad_request",
    "cancelled",
    "tool_error",
    "retrieval_error",
    "agent_error",
)
"""Types of failures, as adapters write them."""

_CONTEXT = re.compile(r"context[_ ]?length|maximum context|context window|too many tokens|prompt is too long", re.I)
_OF_A_MODEL_CALL = (
    (re.compile(r"rate[_ ]?limit|throttl|too[_ ]?many[_ ]?requests|quota|exhausted", re.I), "rate_limited"),
    (re.compile(r"time[_ ]?d?[_ ]?out|deadline", re.I), "timeout"),
    (re.compile(r"auth|permission|forbidden|api[_ ]?key", re.I), "authentication_failed"),
    (re.compile(r"not[_ ]?found", re.I), "not_found"),
    (re.compile(r"bad[_ ]?request|invalid[_ ]?(request|argument)|unprocessable", re.I), "bad_request"),
    (
        re.compile(r"connect|unavailable|overloaded|(internal|server)[_ ]?(server)?[_ ]?error", re.I),
        "engine_unavailable",
    ),
)
_BY_STATUS = {
    401: "authentication_failed",
    403: "authentication_failed",
    404: "not_found",
    408: "timeout",
    409: "engine_unavailable",
    413: "context_too_long",
    429: "rate_limited",
}
_BY_KIND = {"tool": "tool_error", "retrieval": "retrieval_error"}


def failure_of_span(
    kind: SpanKind, failed: bool, message: str, attributes: Mapping[str, Any], exceptions: Iterable[Mapping[str, Any]]
) -> Failure | None:
    """The failure of a span that ``failed`` by its status or has an ``error.type``; None for any other.

    ``exceptions`` are the attributes of its exception events: one without a failed status was handled.
    """
    error = attributes.get(semconv.ERROR_TYPE)
    if not failed and error is None:
        return None
    raised = [*exceptions][-1:]
    exception = str(raised[0].get("exception.type", "")) if raised else ""
    text = message or (str(raised[0].get("exception.message", "")) if raised else "") or str(error or "failed")
    type, fault = _type_and_fault(kind, str(error or exception), text, attributes.get(FAULT))
    return Failure(
        type=type,
        message=text,
        fault=fault,
        exception=exception or (str(error) if error is not None and str(error) != type else None),
        traceback=raised[0].get("exception.stacktrace") if raised else None,
    )


def _type_and_fault(kind: SpanKind, error: str, text: str, told: Any) -> tuple[str, Fault]:
    if told == "agent" or told == "infrastructure":
        return error, told
    if kind == "llm":
        type = error if error in _WORDS else _of_a_model_call(error, text)
        return type, "infrastructure" if type in _INFRASTRUCTURE else "agent"
    if re.search(r"cancel", error, re.I):
        return "cancelled", "agent"
    if kind in _BY_KIND:
        return _BY_KIND[kind], "agent"
    return error if error in _WORDS else "agent_error", "agent"


def _of_a_model_call(error: str, text: str) -> str:
    if _CONTEXT.search(f"{error} {text}"):
        return "context_too_long"
    if error.isdecimal():
        status = int(error)
        return _BY_STATUS.get(status) or ("engine_unavailable" if status >= 500 else "bad_request")
    for pattern, type in _OF_A_MODEL_CALL:
        if pattern.search(error):
            return type
    return "cancelled" if re.search(r"cancel", error, re.I) else "agent_error"
