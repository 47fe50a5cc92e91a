"""Exceptions of the client, and errors in the body of an answer → typed failures.

The endpoint's troubles (limits, time-outs, connections, its own errors, wrong keys) are the infrastructure's; a request
that it cannot take is the agent's.
"""

from __future__ import annotations

from typing import Any

from agentlightning.adapterkit.failures import CONTEXT_LENGTH, failure_of_call, type_of_status
from agentlightning.recording import failure_of
from agentlightning.records import Failure, Fault


def classify(error: BaseException) -> Failure:
    """A typed failure from what a model call raised."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return failure_of(error, "timeout", "infrastructure")
    if isinstance(error, openai.APIConnectionError):
        return failure_of(error, "engine_unavailable", "infrastructure")
    if isinstance(error, openai.APIResponseValidationError):
        return failure_of(error, "invalid_response", "infrastructure")
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIStatusError):
        return failure_of(error, *type_and_fault(error.code, f"{error.type} {error.message}"))
    return failure_of_call(error)


def type_and_fault(code: Any, text: str) -> tuple[str, Fault]:
    """What an error in the body of an answer is, by its code (a status, or a word) and what is said with it."""
    if isinstance(code, int) and 400 <= code < 600:
        return type_of_status(code, text)
    if CONTEXT_LENGTH.search(f"{code} {text}"):
        return "context_too_long", "agent"
    if "rate_limit" in f"{code} {text}":
        return "rate_limited", "infrastructure"
    return "engine_unavailable", "infrastructure"
