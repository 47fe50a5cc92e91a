"""The text of an error in an export → a typed failure."""

from __future__ import annotations

import re

from agentlightning.adapterkit.failures import BY_STATUS, CONTEXT_LENGTH, type_of_status
from agentlightning.records import Failure, Fault, SpanKind

_STATUS = re.compile(r"(?:error code|status(?:[ _]code)?|http)\W{0,3}(\d{3})\b", re.IGNORECASE)
_EXCEPTION = re.compile(r"(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt|Command|Timeout|Cancelled))\b")
_TRACEBACK = "Traceback (most recent call last)"
_BY_NAME = {
    r"RateLimit|TooManyRequests|ResourceExhausted|Throttl": BY_STATUS[429],
    r"Timeout|DeadlineExceeded": BY_STATUS[408],
    r"Authentication|PermissionDenied|Unauthori[sz]ed": BY_STATUS[401],
    r"NotFound": BY_STATUS[404],
    r"Connection|ServiceUnavailable|InternalServer|Overloaded": type_of_status(500),
    r"BadRequest|UnprocessableEntity": type_of_status(400),
}
"""The name of an exception → what it means of a model's call."""
_OF_KIND = {"tool": "tool_error", "retrieval": "retrieval_error"}
CONTROL_FLOW = ("GraphInterrupt", "NodeInterrupt", "GraphBubbleUp", "ParentCommand")
"""What LangGraph raises where nothing went wrong: it waits for somebody, or goes on in another graph."""


def exception_of(text: str) -> str | None:
    """The name of the exception that a text begins with."""
    found = _EXCEPTION.match(text.lstrip())
    return found[1] if found is not None else None


def failure_of(kind: SpanKind, text: str) -> Failure:
    """The failure that a step's error text tells of."""
    message, _, rest = text.partition(_TRACEBACK)
    exception = exception_of(text)
    type, fault = _of_model(exception, text) if kind == "llm" else (_OF_KIND.get(kind, "agent_error"), _AGENT)
    return Failure(
        type=type,
        fault=fault,
        message=message.strip() or text.strip().rpartition("\n")[2],
        exception=exception,
        traceback=f"{_TRACEBACK}{rest}" if rest else None,
    )


_AGENT: Fault = "agent"


def _of_model(exception: str | None, text: str) -> tuple[str, Fault]:
    status = _STATUS.search(text)
    if status is not None and int(status[1]) >= 400:
        return type_of_status(int(status[1]), text)
    if CONTEXT_LENGTH.search(text):
        return BY_STATUS[413]
    found = (meaning for pattern, meaning in _BY_NAME.items() if re.search(pattern, exception or ""))
    return next(found, ("agent_error", _AGENT))
