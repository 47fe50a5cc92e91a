"""What is seen while the first rollout runs, and is in no span of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentlightning.recording.strays import StrayCall, stray_calls
from agentlightning.tracebacks import running_now

SLOW_SECONDS = 10.0
"""After this long a message says where the agent is."""


@contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """The warnings of every distribution of ours that are logged inside the block, each once; the handlers that a
    program has installed are given them, too."""
    messages: dict[str, None] = {}
    found: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if record.name.startswith("agentlightning") and message not in messages:
                messages[message] = None
                found.append(message)

    handler = Keeping(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def calls_outside() -> Iterator[list[str]]:
    """The model calls that are made inside the block and belong to no rollout."""
    before = {_where(call): call.count for call in stray_calls()}
    found: list[str] = []
    try:
        yield found
    finally:
        found += [_where(call) for call in stray_calls() if call.count > before.get(_where(call), 0)]


def _where(call: StrayCall) -> str:
    return f"{call.model} at {call.host}, made in {call.location}"


@contextmanager
def notice_when_slow(say: Callable[[str], None]) -> Iterator[None]:
    """Says once where the user's code is, when the block takes longer than `SLOW_SECONDS`."""

    earlier = asyncio.all_tasks()

    def notice() -> None:
        lines = running_now(asyncio.all_tasks() - earlier)
        at = f"it is at {', '.join(lines)}" if lines else "none of your own code runs at the moment"
        say(f"the first rollout has run for {SLOW_SECONDS:.0f} s; {at}")

    handle = asyncio.get_running_loop().call_later(SLOW_SECONDS, notice)
    try:
        yield
    finally:
        handle.cancel()
