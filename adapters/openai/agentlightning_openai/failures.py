"""Exceptions of the client → typed failures: what went wrong, and whose fault it was."""

from __future__ import annotations

import re
from typing import Any

from agentlightning.recording import failure_of
from agentlightning.records import Failure, Fault

_CONTEXT = re.compile(r"context[_ ]length|maximum context|context window|too many tokens|prompt is too long", re.I)


def classify(error: BaseException) -> Failure:
    """A typed failure from what a model call raised.

    The endpoint's troubles (limits, time-outs, connections, its own errors, wrong keys) are the
    infrastructure's; a request that the endpoint cannot take is the agent's.
    """
    return failure_of(error, *_type_and_fault(error))


def _type_and_fault(error: BaseException) -> tuple[str, Fault]:
    import openai

    if isinstance(error, openai.APITimeoutError):
        return "timeout", "infrastructure"
    if isinstance(error, openai.APIConnectionError):
        return "engine_unavailable", "infrastructure"
    if isinstance(error, openai.APIStatusError):
        return _of_status(error.status_code, f"{error.code} {error.message}")
    if isinstance(error, openai.APIResponseValidationError):
        return "invalid_response", "infrastructure"
    if isinstance(error, openai.APIError):
        return type_and_fault(error.code, f"{error.type} {error.message}")
    # A stream that breaks raises the errors of httpx or httpx2, whichever the client is built on.
    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}
    if "TimeoutException" in kinds:
        return "timeout", "infrastructure"
    if kinds & {"RequestError", "StreamError"}:
        return "engine_unavailable", "infrastructure"
    return "agent_error", "agent"


def type_and_fault(code: Any, text: str) -> tuple[str, Fault]:
    """The same for an error that stands in the body of an answer, by its code: a status, or a word."""
    if isinstance(code, int) and 400 <= code < 600:
        return _of_status(code, text)
    return _of_stream_event(f"{code} {text}")


def _of_status(status: int, text: str) -> tuple[str, Fault]:
    if status == 413 or (400 <= status < 500 and _CONTEXT.search(text)):
        return "context_too_long", "agent"
    if status == 429:
        return "rate_limited", "infrastructure"
    if status in (401, 403):
        return "authentication_failed", "infrastructure"
    if status == 404:
        return "not_found", "infrastructure"
    if status == 408:
        return "timeout", "infrastructure"
    if status == 409 or status >= 500:
        return "engine_unavailable", "infrastructure"
    return "bad_request", "agent"


def _of_stream_event(text: str) -> tuple[str, Fault]:
    if _CONTEXT.search(text):
        return "context_too_long", "agent"
    if "rate_limit" in text:
        return "rate_limited", "infrastructure"
    return "engine_unavailable", "infrastructure"
