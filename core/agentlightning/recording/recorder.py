"""The recorder of one attempt of one rollout: it writes spans, rewards and failures as they happen."""

from __future__ import annotations

import contextvars
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from agentlightning import semconv
from agentlightning.recording.failures import guarded
from agentlightning.recording.repeating import RecordedAnswers
from agentlightning.records import AnyResource, Failure, Resource, Reward, Span, SpanKind, encode
from agentlightning.redaction import begin_redacting, holds_known, redact_fields

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

span_of_context: contextvars.ContextVar[Span | None] = contextvars.ContextVar("agentlightning_span", default=None)


def current_span() -> Span | None:
    """The innermost span of the context: one that was opened by hand (`agentlightning.span`), or in a thread the span
    that it was begun in."""
    return span_of_context.get()


class Recorder:
    """Writes the spans of one attempt of one rollout, from any thread, to ``sink`` as they end.

    ``resources`` are those the rollout runs with, ``repeats`` the answers of another that its first calls get;
    ``adapter_state`` holds what an adapter keeps for the rollout, keyed by the adapter's name. ``first_index`` is that
    of the first span, where others of the attempt are written already.
    """

    def __init__(
        self,
        rollout_id: str,
        attempt: int,
        sink: Callable[[Sequence[Span]], None],
        resources: Sequence[AnyResource] = (),
        *,
        seed: int | None = None,
        repeats: RecordedAnswers | None = None,
        first_index: int = 0,
        is_live: bool = False,
        is_kept: bool = True,
    ) -> None:
        self.rollout_id = rollout_id
        self.attempt = attempt
        self.resources = tuple(resources)
        self.seed = seed
        self.repeats = repeats
        self.is_live = is_live
        """Whether it watches a deployed agent: what others do meanwhile is none of its business, and a call to which
        the resources cannot be applied is sent as it is."""
        self.is_kept = is_kept
        """Whether anybody keeps what is recorded: else it is there for its resources alone."""
        self.not_applied: str | None = None
        """Why the resources were left, where they were (`leave_resources`)."""
        self.rewards: list[Reward] = []
        self.failures: list[Failure] = []
        self.last_call: Span | None = None
        """The ``llm`` span that ended last."""
        self.adapter_state: dict[str, Any] = {}
        self.closed = False
        self.forked = False
        """Whether this is a copy in a process that was forked from the rollout's: nothing written here is kept."""
        self._sink = sink
        self._count = itertools.count(first_index)
        self._open: dict[str, Span] = {}
        self._expected: set[str] = set()
        self._tentative: dict[str, Span | None] = {}  # the span above each, by its id
        self._dropped: dict[str, Span | None] = {}  # likewise
        self._enders: dict[str, Callable[[Failure | None], None]] = {}
        self._cancelled: dict[str, list[Span]] = {}  # in a span that is still open, by its id
        self._left: set[str | None] = set()
        begin_redacting()

    def start(
        self,
        kind: SpanKind,
        name: str,
        *,
        parent: Span | None = None,
        agent: str | None = None,
        attributes: dict[str, Any] | None = None,
        tentative: bool = False,
    ) -> Span:
        """A span that begins now. Without ``parent`` it hangs under the current span of the context; without ``agent``
        it is its parent's. A ``tentative`` one is written only if another, which is not, begins in it."""
        above = parent if parent is not None else current_span()
        while above is not None and above.id in self._dropped:
            above = self._dropped[above.id]
        if not tentative:
            self._confirm(above)
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
        if tentative:
            self._tentative[span.id] = above
        return span

    def is_tentative(self, span: Span) -> bool:
        """Whether nothing has begun yet in a tentative span."""
        return span.id in self._tentative

    def _confirm(self, span: Span | None) -> None:
        while span is not None and span.id in self._tentative:
            span = self._tentative.pop(span.id)

    def start_call(
        self, name: str, *, parent: Span | None, agent: str | None = None, attributes: dict[str, Any] | None = None
    ) -> Span:
        """The span of a model call that is about to be made under ``parent``: that very span where it is the one of an
        expected call, else a new one."""
        span = self.take_expected_call(parent)
        if span is None:
            return self.start("llm", name, parent=parent, agent=agent, attributes=attributes)
        span.name, span.agent = name, agent if agent is not None else span.agent
        span.attributes.update(attributes or {})
        return span

    def expect_call(self, span: Span) -> None:
        """Has the model call that a framework is about to make recorded as ``span``, an ``llm`` span that its adapter
        has started: one call is one span. Whoever sees the call itself (the model layer) takes it; when the framework
        says that the call has ended, its adapter takes and writes what nobody has taken."""
        self._expected.add(span.id)

    def expects_call(self, span: Span | None) -> bool:
        """Whether ``span`` is that of an expected call that nobody has taken yet."""
        return span is not None and span.id in self._expected

    def take_expected_call(self, span: Span | None) -> Span | None:
        """``span``, to whoever asks first, where it is that of an expected call; else None."""
        if span is None or span.id not in self._expected:
            return None
        try:
            self._expected.remove(span.id)
        except KeyError:  # somebody else was faster
            return None
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
        if span.id in self._tentative:
            self._dropped[span.id] = self._tentative.pop(span.id)
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
        """Keeps a reward given during the run, as a span where and when it was given. A step reward is tied to the span
        above; ``failure`` says why it has no value."""
        above = parent if parent is not None else current_span()
        if reward.step and reward.span_id is None and above is not None:
            reward.span_id = above.id
        span = self.start("reward", reward.name, parent=above)
        span.reward = reward
        if not self.closed:
            self.rewards.append(reward)
        self.end(span, failure)

    def leave_resources(self, reason: str) -> None:
        """The rollout, which is of a deployed agent, goes on without its resources, since they cannot be applied."""
        if self.not_applied is None:
            logger.warning("what is in production was not applied to a run of the agent: %s", reason)
            self.not_applied, self.resources = reason, ()
            self.end(self.start("annotation", "resources not applied", attributes={"reason": reason}))

    def resource(self, kind: type[R], agent: str | None) -> R | None:
        """The first resource of a kind whose patterns match the agent's name; `*` also matches an agent without one."""
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
    generation = span.generation
    texts = (generation.messages, generation.tools, generation.response) if generation is not None else ()
    if holds_known(encode((span.name, span.attributes, texts))):
        redact_fields(span, "name", "attributes")
        redact_fields(generation, "messages", "tools", "response")


def _drop(spans: Sequence[Span]) -> None:
    logger.debug("%d span(s) came after their rollout had ended; dropped", len(spans))


def matches(agent: str | None, patterns: Sequence[str]) -> bool:
    """Whether an agent's name matches one of the shell-style patterns."""
    return any(pattern == "*" or fnmatchcase(agent or "", pattern) for pattern in patterns)
