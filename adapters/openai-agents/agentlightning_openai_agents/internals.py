"""Everything of the SDK that is used and not promised by its documentation. Checked with 0.20.0 and 0.24.0.

Where a name is missing, what it is for is left out, with a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from agentlightning.recording import current
from agentlightning_openai.router import PLACEHOLDER_KEY

logger = logging.getLogger(__name__)

_EXPORTS = ("on_trace_start", "on_span_end")
_exporting: Any = None


def watch_errors(span: Any, on_error: Callable[[], None]) -> None:
    """Calls ``on_error`` when the SDK sets an error on this span, which it does where it handles a tool's exception:
    the only place where that exception can still be read."""
    set_error = span.set_error

    def call_and_set(error: Any) -> None:
        on_error()
        set_error(error)

    try:
        span.set_error = call_and_set
    except AttributeError:
        logger.warning("the SDK's spans cannot be watched: failures of tools are recorded without their exception")


def keep_traces_here() -> None:
    """The SDK sends every trace to OpenAI's servers, unless its processors were replaced. Not those of a rollout."""
    global _exporting
    try:
        from agents.tracing.processors import default_processor
    except ImportError:
        logger.warning("this SDK has no default_processor: its own export of traces, if any, stays on in rollouts")
        return
    _exporting = default_processor()
    for name in _EXPORTS:
        if name not in vars(_exporting):
            setattr(_exporting, name, _outside_of_rollouts(getattr(_exporting, name)))


def send_traces_again() -> None:
    """Undoes `keep_traces_here`."""
    for name in _EXPORTS if _exporting is not None else ():
        vars(_exporting).pop(name, None)


def _outside_of_rollouts(export: Callable[[Any], None]) -> Callable[[Any], None]:
    """Our placeholder is no key to send anything with: without one, the SDK would not."""

    def call(item: Any) -> None:
        if current() is None and os.environ.get("OPENAI_API_KEY") != PLACEHOLDER_KEY:
            export(item)

    return call
