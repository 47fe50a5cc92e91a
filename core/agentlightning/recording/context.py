"""Which rollout runs here, and where in it: context variables, and what frameworks say.

They follow asyncio tasks and `asyncio.to_thread`, and, by `agentlightning.recording.following`, threads and the calls
of executors that begin within the rollout.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agentlightning.recording.following import Values
from agentlightning.recording.following import install as follow_threads
from agentlightning.recording.recorder import Recorder, current_span, span_of_context
from agentlightning.recording.strays import any_active, is_outside, running
from agentlightning.records import Span

logger = logging.getLogger(__name__)

_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("agentlightning_recorder", default=None)
_in_own_thread: contextvars.ContextVar[bool] = contextvars.ContextVar("agentlightning_in_own_thread", default=False)
"""Whether the current rollout began a thread, and this is it."""
unsampled: contextvars.ContextVar[Unsampled | None] = contextvars.ContextVar("agentlightning_unsampled", default=None)
"""The run of a deployed agent that goes on here and is not recorded."""
Locator = Callable[[Recorder], Span | None]
_locators: list[Locator] = []


class Unsampled:
    """A run of a deployed agent that is not recorded, and nothing in it."""

    def __init__(self) -> None:
        self.ended = False


def current() -> Recorder | None:
    """The recorder of the current rollout; None outside a rollout, and in a thread that outlived the one it began in:
    what it does now, it may do for another."""
    recorder = _recorder.get()
    if recorder is not None and recorder.closed and _in_own_thread.get():
        return None
    return recorder


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Makes ``recorder`` current inside the block; the caller closes it."""
    follow_work()
    token, span_token = _recorder.set(recorder), span_of_context.set(None)
    try:
        with running(recorder):
            yield recorder
    finally:
        _recorder.reset(token)
        span_of_context.reset(span_token)


def follow_work() -> None:
    """Has work that is handed to threads go on in the rollout that it was handed over in (`following`)."""
    follow_threads(_to_carry)


def _to_carry(for_thread: bool) -> Values | None:
    """What a thread that begins here is to know: the rollout, and the span that its calls belong under."""
    left_out = unsampled.get()
    if left_out is not None and not left_out.ended:
        return ((unsampled, left_out),)
    if not any_active():
        return None
    recorder = current()
    if recorder is not None:
        return ((_recorder, recorder), (span_of_context, locate(recorder)), (_in_own_thread, for_thread))
    return ((is_outside, True),) if is_outside.get() else None


def add_locator(locator: Locator) -> None:
    """Adds a function that knows which span of its framework is running here. An adapter adds one when it is
    installed."""
    if locator not in _locators:
        _locators.append(locator)


def remove_locator(locator: Locator) -> None:
    """Takes it out again."""
    if locator in _locators:
        _locators.remove(locator)


def locate(recorder: Recorder) -> Span | None:
    """The span that what happens right here belongs under.

    The one rule for where that is: of the spans that frameworks say are running here, and the one that was opened by
    hand, it is that which began last; but a call that a framework is about to make is what is done here, whatever was
    opened by hand inside of it.
    """
    last: Span | None = None
    for locator in _locators:
        try:
            span = locator(recorder)
        except Exception:
            logger.exception("locator %r failed; ignored", locator)
            continue
        if span is not None and (last is None or span.index > last.index):
            last = span
    if last is None:
        return current_span()
    return last if recorder.expects_call(last) else innermost(last)


def innermost(span: Span | None) -> Span | None:
    """``span``, or the one that was opened by hand after it began and is still open."""
    by_hand = current_span()
    if by_hand is None or by_hand.ended_at is not None or (span is not None and by_hand.index < span.index):
        return span
    return by_hand
