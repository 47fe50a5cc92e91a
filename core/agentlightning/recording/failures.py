"""Exceptions → typed failures; and hooks whose exceptions reach nobody's agent."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from agentlightning.errors import RedirectError, text_of
from agentlightning.records import Failure, Fault
from agentlightning.tracebacks import origin

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


def guarded(hook: Callable[P, T]) -> Callable[P, T | None]:
    """A hook whose errors reach the log, and never the agent: what is recorded is not harmed by the recording. It
    returns None then."""

    @functools.wraps(hook)
    def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return hook(*args, **kwargs)
        except Exception:
            logger.exception("%s.%s failed; the agent goes on", hook.__module__, hook.__qualname__)
            return None

    return call


def failure_of(error: BaseException, type: str = "agent_error", fault: Fault = "agent") -> Failure:
    """A typed failure from an exception; of a group of them the message says the first. What is no `Exception` (a
    cancelled task, Ctrl-C) stops whatever runs, and is of type ``cancelled`` wherever it passes through; a call that
    could not be redirected is the infrastructure's."""
    if not isinstance(error, Exception):
        type, fault = "cancelled", "agent"
    elif isinstance(error, RedirectError):
        type, fault = "redirect_failed", "infrastructure"
    message, first = text_of(error), error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
        message += f": {first.__class__.__name__}: {text_of(first)}"
    return Failure(
        type=type,
        message=message or error.__class__.__name__,
        fault=fault,
        exception=f"{error.__class__.__module__}.{error.__class__.__qualname__}",
        traceback="".join(traceback.format_exception(error, limit=-20)),
        where=origin(error),
    )
