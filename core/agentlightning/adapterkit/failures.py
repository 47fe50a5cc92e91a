"""What went wrong with a call of a model, and whose fault it was: one table, whoever saw the call."""

from __future__ import annotations

import re

from agentlightning.errors import text_of
from agentlightning.recording import failure_of
from agentlightning.records import Failure, Fault

CONTEXT_LENGTH = re.compile(
    r"context[_ ]?length|maximum context|context window|too many tokens|prompt is too long", re.IGNORECASE
)
"""How endpoints say that a prompt is too long, in a code or a message."""

BY_STATUS: dict[int, tuple[str, Fault]] = {
    401: ("authentication_failed", "infrastructure"),
    403: ("authentication_failed", "infrastructure"),
    404: ("not_found", "infrastructure"),
    408: ("timeout", "infrastructure"),
    409: ("engine_unavailable", "infrastructure"),
    413: ("context_too_long", "agent"),
    429: ("rate_limited", "infrastructure"),
}
"""Failure types of HTTP statuses; every other one below 500 is a request that the endpoint cannot take."""

_HTTP_CLIENTS = ("httpx", "httpcore", "httpx2", "requests", "aiohttp", "urllib3", "grpc")


def type_of_status(status: int, text: str = "") -> tuple[str, Fault]:
    """The type of a failure, and whose fault it was, by the HTTP status and what was said with it."""
    if 400 <= status < 500 and status != 429 and CONTEXT_LENGTH.search(text):
        return BY_STATUS[413]
    if status >= 500:
        return "engine_unavailable", "infrastructure"
    return BY_STATUS.get(status, ("bad_request", "agent"))


def failure_of_call(error: BaseException) -> Failure:
    """The typed failure of a call that raised, by whatever client: by the HTTP status that its exception carries, else
    by its class. What is no trouble with an endpoint is the agent's own."""
    return failure_of(error, *_type_of_error(error))


def _type_of_error(error: BaseException) -> tuple[str, Fault]:
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return type_of_status(status, f"{getattr(error, 'code', None)} {text_of(error)}")
    names = [kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in _HTTP_CLIENTS]
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        return "timeout", "infrastructure"
    if names or isinstance(error, ConnectionError):
        return "engine_unavailable", "infrastructure"
    return "agent_error", "agent"
