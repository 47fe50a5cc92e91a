"""What happens in the current rollout, written as it happens.

A `Recorder` belongs to one attempt of one rollout and is current in a context variable, so it follows asyncio tasks
and `asyncio.to_thread`, and, by `agentlightning.following`, threads and the calls of executors that begin within the
rollout. With no rollout active, every function here returns at once.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, get_args

from agentlightning import following, semconv
from agentlightning.errors import RedirectError, RewardError, text_of
from agentlightning.records import AnyResource, Failure, Fault, Resource, Reward, Span, SpanKind, encode
from agentlightning.redaction import holds_known, redact_fields, remember_environment
from agentlightning.reward_value import reward_value
from agentlightning.strays import StrayCall as StrayCall
from agentlightning.strays import any_active, is_outside, running
from agentlightning.strays import outside as outside
from agentlightning.strays import stray_calls as stray_calls
from agentlightning.threads import was_left
from agentlightning.tracebacks import origin

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
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


class Recorder:
    """Writes the spans of one attempt of one rollout, from any thread, to ``sink`` as they end.

    ``resources`` are those the rollout runs with; ``scratch`` is a place for an adapter's own state,
    keyed by the adapter's name.
    """

    def __init__(
        self,
        rollout_id: str,
        attempt: int,
        sink: Callable[[Sequence[Span]], None],
        resources: Sequence[AnyResource] = (),
        *,
        seed: int | None = None,
    ) -> None:
        self.rollout_id = rollout_id
        self.attempt = attempt
        self.resources = tuple(resources)
        self.seed = seed
        self.rewards: list[Reward] = []
        self.failures: list[Failure] = []
        self.last_call: Span | None = None
        """The ``llm`` span that ended last."""
        self.announced: set[str] = set()
        """Ids of ``llm`` spans that an adapter began for a call its framework is about to make. Whoever sees
        the call itself (the model layer) starts an ``llm`` span under it and is given that very span, so that
        one call is one span."""
        self.scratch: dict[str, Any] = {}
        self.closed = False
        self.forked = False
        """Whether this is a copy in a process that was forked from the rollout's: nothing written here is kept."""
        self._sink = sink
        self._count = itertools.count()
        self._open: dict[str, Span] = {}
        self._enders: dict[str, Callable[[Failure | None], None]] = {}
        self._cancelled: dict[str, list[Span]] = {}  # in a span that is still open, by its id
        self._left: set[str | None] = set()
        remember_environment()

    def start(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: Span | None = None,
        agent: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> Span:
        """A span that begins now. Without ``parent`` it hangs under the current span of the context;
        without ``agent`` it is its parent's."""
        above = parent if parent is not None else current_span()
        if kind == "llm" and above is not None and above.id in self.announced:
            self.announced.discard(above.id)
            above.name, above.agent = name, agent if agent is not None else above.agent
            above.attributes.update(attributes or {})
            return above
        span = Span(
            rollout_id=self.rollout_id,
            attempt=self.attempt,
            parent_id=above.id if above else None,
            index=next(self._count),
            kind=kind,
            name=name,
            agent=agent if agent is not None else (above.agent if above else None),
            attributes=attributes if attributes is not None else {},
        )
        self._open[span.id] = span
        return span

    def on_close(self, span: Span, ender: Callable[[Failure | None], None]) -> None:
        """Has ``ender`` end ``span``, if it is still open when the rollout ends: it is given the rollout's failure."""
        self._enders[span.id] = ender

    def end(self, span: Span, failure: Failure | None = None, *, at: float | None = None, left: bool = False) -> None:
        """Ends a span, once, and hands it to the sink; ``at`` is when it ended, where that is not now. What was
        cancelled in it because its reader ``left`` has not failed: agents, and calls of which there is an answer. After
        `close` nothing is written any more."""
        self._enders.pop(span.id, None)
        if self._open.pop(span.id, None) is None:
            return
        span.ended_at = at if at is not None else time.time()
        if failure is not None:
            span.failure = failure
        if span.kind == "llm":
            self.last_call = span
        ended = [*self._cancelled.pop(span.id, ()), span]
        is_cancelled = span.failure is not None and span.failure.type == "cancelled"
        if left or (is_cancelled and span.parent_id in self._left):
            self._left.add(span.id)
            for inside in ended:
                if inside.kind == "agent" or (inside.generation is not None and inside.generation.response is not None):
                    inside.failure = None
                    inside.attributes.pop(semconv.ERROR_TYPE, None)
        elif is_cancelled and span.parent_id in self._open:
            self._cancelled.setdefault(span.parent_id, []).extend(ended)
            return
        self._write(ended)

    def _write(self, spans: Sequence[Span]) -> None:
        for span in spans:
            if span.failure is not None:
                self.failures.append(span.failure)
            _redact(span)
        self._sink(spans)

    def reward(self, reward: Reward, failure: Failure | None = None, *, parent: Span | None = None) -> None:
        """Keeps a reward given during the run, at its place and time; ``failure`` says why it has no value."""
        above = parent if parent is not None else current_span()
        if reward.span_id is None and above is not None:
            reward.span_id = above.id
        span = self.start("reward", reward.name, parent=above)
        span.reward = reward
        if not self.closed:
            self.rewards.append(reward)
        self.end(span, failure)

    def resource(self, kind: type[R], agent: str | None) -> R | None:
        """The first resource of a kind whose patterns match the agent's name (`*` matches no name, too)."""
        for resource in self.resources:
            if isinstance(resource, kind) and matches(agent, resource.agents):
                return resource
        return None

    def close(self, failure: Failure | None = None) -> None:
        """Ends the spans still open, innermost first, and takes no more. ``failure`` is the rollout's, if any. What
        nobody ends (`on_close`) was cancelled. An agent in which no tool was cut off was just left, by one that
        returned (a stream that it read no further), and has not failed."""
        cut_off: set[str | None] = set()
        for span in sorted(self._open.values(), key=lambda span: -span.index):
            if span.id in self._enders:
                guarded(self._enders[span.id])(failure)
            left = failure is None and span.kind == "agent" and span.id not in cut_off
            cut = Failure(type="cancelled", message="still open when its rollout ended")
            self.end(span, span.failure or (None if left else cut), left=left)
            if span.failure is not None and span.kind != "llm":
                cut_off.add(span.parent_id)
        for spans in self._cancelled.values():
            self._write(spans)
        self.closed = True
        self._sink = _drop


@guarded
def _redact(span: Span) -> None:
    """Blots out the secrets that were met. Tokens stay as they are."""
    said = span.generation
    texts = (said.messages, said.tools, said.response) if said is not None else ()
    if holds_known(encode((span.name, span.attributes, texts))):
        redact_fields(span, "name", "attributes")
        redact_fields(said, "messages", "tools", "response")


def _drop(spans: Sequence[Span]) -> None:
    logger.debug("%d span(s) came after their rollout had ended; dropped", len(spans))


def matches(agent: str | None, patterns: Sequence[str]) -> bool:
    """Whether an agent's name matches one of the shell-style patterns."""
    return any(pattern == "*" or fnmatchcase(agent or "", pattern) for pattern in patterns)


_recorder: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar("agentlightning_recorder", default=None)
_span: contextvars.ContextVar[Span | None] = contextvars.ContextVar("agentlightning_span", default=None)
_in_own_thread: contextvars.ContextVar[bool] = contextvars.ContextVar("agentlightning_in_own_thread", default=False)
"""Whether the current rollout began a thread, and this is it."""
Locator = Callable[[Recorder], Span | None]
_locators: list[Locator] = []


def current() -> Recorder | None:
    """The recorder of the current rollout; None outside a rollout, and in a thread that outlived the one it began in:
    what it does now, it may do for another."""
    recorder = _recorder.get()
    if recorder is not None and recorder.closed and _in_own_thread.get():
        return None
    return recorder


def current_span() -> Span | None:
    """The innermost span of the context."""
    return _span.get()


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Makes ``recorder`` current inside the block; the caller closes it."""
    following.install(_to_carry)
    token, span_token = _recorder.set(recorder), _span.set(None)
    try:
        with running(recorder):
            yield recorder
    finally:
        _recorder.reset(token)
        _span.reset(span_token)


def _to_carry(for_thread: bool) -> following.Values | None:
    """What a thread that begins here is to know: the rollout, and the span that its calls belong under."""
    if not any_active():
        return None
    recorder = current()
    if recorder is not None:
        return ((_recorder, recorder), (_span, locate(recorder)), (_in_own_thread, for_thread))
    return ((is_outside, True),) if is_outside.get() else None


def add_locator(locator: Locator) -> None:
    """Adds a function that knows which span of its framework is running here, for the model layer to
    hang its calls under. An adapter adds one when it is installed."""
    if locator not in _locators:
        _locators.append(locator)


def remove_locator(locator: Locator) -> None:
    """Takes it out again."""
    if locator in _locators:
        _locators.remove(locator)


def locate(recorder: Recorder) -> Span | None:
    """The span that a call made right here belongs under: what a framework says, else the context's. Where one
    framework runs inside another, that of the two which began last."""
    innermost: Span | None = None
    for locator in _locators:
        try:
            span = locator(recorder)
        except Exception:
            logger.exception("locator %r failed; ignored", locator)
            continue
        if span is not None and (innermost is None or span.index > innermost.index):
            innermost = span
    return innermost if innermost is not None else current_span()


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


class span:
    """Records a block as a span, for those who want to say more by hand; ``with`` and ``async with``::

        with agl.span("plan", kind="agent") as plan:
            plan.set(steps=3)

    An exception marks the span as failed and passes through.
    """

    def __init__(self, name: str, kind: SpanKind = "agent", *, agent: str | None = None, **attributes: Any) -> None:
        if kind not in get_args(SpanKind):
            raise ValueError(f"agl.span {name!r}: there is no kind {kind!r}; there is: {', '.join(get_args(SpanKind))}")
        self._make = (kind, str(name), None if agent is None else str(agent), attributes)
        self._recorder: Recorder | None = None
        self._record: Span | None = None
        self._token: contextvars.Token[Span | None] | None = None

    def set(self, **attributes: Any) -> None:
        """Adds attributes."""
        if self._record is not None:
            self._record.attributes.update(attributes)

    @guarded
    def _begin(self) -> None:
        self._recorder = current()
        if self._recorder is not None:
            kind, name, agent, attributes = self._make
            parent = locate(self._recorder)
            self._record = self._recorder.start(kind, name, parent=parent, agent=agent, attributes=dict(attributes))
            self._token = _span.set(self._record)

    @guarded
    def _end(self, error: BaseException | None) -> None:
        if self._recorder is None or self._record is None or self._token is None:
            return
        left = was_left(error)
        failure = failure_of(error) if error is not None and not left else None
        self._recorder.end(self._record, failure, left=left)
        with suppress(ValueError):  # a generator that was left is closed in the context of somebody else
            _span.reset(self._token)

    def __enter__(self) -> span:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)

    async def __aenter__(self) -> span:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


def reward(value: float, name: str = "reward", *, weight: float = 1.0, reason: str | None = None) -> None:
    """Gives the current rollout a reward, at this place and time. Outside a rollout: nothing.

    What is no finite number is kept without a value, with the reason: the rollout is left out, and not zero.
    """
    recorder = current()
    if recorder is not None:
        record, failure = _reward(value, str(name), weight, reason)
        recorder.reward(record, failure, parent=locate(recorder))


def _reward(value: Any, name: str, weight: Any, reason: Any) -> tuple[Reward, Failure | None]:
    try:
        number, factor = reward_value(value), reward_value(weight)
        if factor is None:
            raise RewardError("gave no weight: expected a number")
    except Exception as error:  # noqa: BLE001 - a stranger's number may raise anything, and harms no agent
        failure = failure_of(error, "reward_error", "infrastructure")
        text = failure.message
        failure.message = f"agl.reward {name!r} {text}"
        return Reward(name=name, value=None, reason=text), failure
    if number is None and reason is None:
        reason = "the agent could not score this"
    return Reward(name=name, value=number, weight=factor, reason=None if reason is None else str(reason)), None


def annotate(name: str = "annotation", **attributes: Any) -> None:
    """Notes something in the current rollout. Outside a rollout: nothing."""
    recorder = current()
    if recorder is not None:
        note = recorder.start("annotation", str(name), parent=locate(recorder), attributes=attributes)
        recorder.end(note)
