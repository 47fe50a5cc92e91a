"""A trace put together: spans merged in whatever order they come, and what the whole means for its rollout.

Pure functions on the spans of one trace, by id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from msgspec.structs import replace

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Record, Reward, Span
from agentlightning_otel import conventions as names
from agentlightning_otel.content import content_of
from agentlightning_otel.incoming import generation_of
from agentlightning_otel.messages import chat_messages, text_of
from agentlightning_otel.values import digest


class Outcome(Record, kw_only=True):
    """The result of a trace. ``task_id`` is None where nothing names the task or has its input."""

    task_id: str | None = None
    input: Any = None
    output: Any = None
    failure: Failure | None = None
    rewards: list[Reward] = []
    started_at: float | None = None
    ended_at: float | None = None


NOTHING_CAME = Failure(
    type="nothing_received",
    message="no span of this trace is stored: its receiver was stopped before the first, and none was sent again",
    fault="infrastructure",
)


def add(spans: dict[str, Span], new: Iterable[Span]) -> list[Span]:
    """Adds spans to a trace; returns those that are new or changed by them.

    One that is there already changes nothing. Indices follow the order in which spans began, parents
    before their children; a span without an agent's name of its own has its parent's.
    """
    before = {id: (span.index, span.agent) for id, span in spans.items()}
    changed: set[str] = set()
    for span in new:
        known = spans.get(span.id)
        whole = _with_events(span if known is None else _merged(known, span))
        if known is None or whole != known:
            spans[span.id] = whole
            changed.add(span.id)
    for index, span in enumerate(_in_order(spans)):
        span.index = index
        parent = spans.get(span.parent_id or "")
        own = span.attributes.get(semconv.AGENT_NAME)
        span.agent = str(own) if own is not None else (parent.agent if parent is not None else None)
        if before.get(span.id) != (span.index, span.agent):
            changed.add(span.id)
    return [spans[id] for id in changed]


def root_of(spans: Mapping[str, Span]) -> Span | None:
    """The span that nothing called, once it has ended."""
    tops = [span for span in spans.values() if span.parent_id is None and span.kind != "reward"]
    ended = [span for span in tops if span.ended_at is not None]
    return min(ended, key=lambda span: span.index, default=None)


def outcome_of(spans: Mapping[str, Span]) -> Outcome:
    """The result of the trace as it is. Without a root, it is that of its topmost spans."""
    if not spans:
        return Outcome(failure=NOTHING_CAME)
    ordered = sorted(spans.values(), key=lambda span: span.index)
    acted = [span for span in ordered if span.kind not in ("reward", "annotation")]
    tops = [span for span in acted if _nearest_actor(span, spans) is None]
    calls = [span for span in acted if span.generation is not None]
    questions = (_question(call.generation.messages) for call in calls if call.generation is not None)
    inputs = chain(map(_input, tops), questions)
    input = next((found for found in inputs if found is not None), None)
    named = next((id for span in ordered if (id := span.attributes.get(names.TASK_ID)) is not None), None)
    return Outcome(
        task_id=str(named) if named is not None else (None if input is None else _task_id(input)),
        input=input,
        output=_output(tops, calls),
        failure=_failure(root_of(spans), tops, calls, ordered),
        rewards=[placed(span.reward, span, spans) for span in ordered if span.reward is not None],
        started_at=min(span.started_at for span in ordered),
        ended_at=max(map(_end, ordered)),
    )


def placed(reward: Reward, span: Span, spans: Mapping[str, Span]) -> Reward:
    """The reward with the span of its step: none where it is for the whole, the root, or for no span known."""
    target = spans.get(span.parent_id or "")
    return replace(reward, span_id=None if target is None or target.parent_id is None else target.id)


def _merged(known: Span, new: Span) -> Span:
    """Both: of what both have, the one that has ended is right, and of two that have, the later received."""
    first, second = (known, new) if new.ended_at is not None or known.ended_at is None else (new, known)
    events = {**first.attributes.get(names.EVENTS, {}), **second.attributes.get(names.EVENTS, {})}
    attributes = {**first.attributes, **second.attributes}
    return replace(
        second,
        parent_id=second.parent_id or first.parent_id,
        attributes={**attributes, names.EVENTS: events} if events else attributes,
        generation=_joined(first.generation, second.generation),
        reward=second.reward or first.reward,
        failure=second.failure or first.failure,
        attempt=known.attempt,
        index=known.index,
        agent=known.agent,
    )


def _with_events(span: Span) -> Span:
    """The span with the messages of the events that came apart from it so far."""
    events = span.attributes.get(names.EVENTS)
    if not events:
        return span
    content = content_of(
        {semconv.OPERATION_NAME: "chat"}, [(name, event) for _, (name, event) in sorted(events.items())]
    )
    return replace(span, generation=_joined(span.generation, generation_of(span.attributes, content)))


def _joined(first: Generation | None, second: Generation | None) -> Generation | None:
    if first is None or second is None:
        return second or first
    fields = ("messages", "tools", "response", "model", "finish_reason", "usage")
    return replace(second, **{name: getattr(second, name) or getattr(first, name) for name in fields})


def _in_order(spans: Mapping[str, Span]) -> list[Span]:
    """By when they began; where clocks differ, never before the span that called them."""
    begun: dict[str, tuple[float, int]] = {}
    for span in spans.values():
        path: dict[str, Span] = {}
        ancestor: Span | None = span
        while ancestor is not None and ancestor.id not in begun and ancestor.id not in path:
            path[ancestor.id] = ancestor
            ancestor = spans.get(ancestor.parent_id or "")
        at, depth = begun.get(ancestor.id, (0.0, -1)) if ancestor is not None else (0.0, -1)
        for link in reversed(path.values()):
            at, depth = max(at, link.started_at), depth + 1
            begun[link.id] = (at, depth)
    return sorted(spans.values(), key=lambda span: (*begun[span.id], span.id))


def _nearest_actor(span: Span, spans: Mapping[str, Span]) -> Span | None:
    """The span that called this one, past annotations."""
    seen = {span.id}
    ancestor = spans.get(span.parent_id or "")
    while ancestor is not None and ancestor.kind == "annotation" and ancestor.id not in seen:
        seen.add(ancestor.id)
        ancestor = spans.get(ancestor.parent_id or "")
    return None if ancestor is None or ancestor.kind == "annotation" or ancestor.id in seen else ancestor


def _end(span: Span) -> float:
    return span.ended_at or span.started_at


def _input(span: Span) -> Any:
    if span.kind != "agent":
        return None
    messages = chat_messages(span.attributes.get(names.INPUT_MESSAGES))
    return _question(messages) if messages else span.attributes.get(names.INPUT_VALUE)


def _question(messages: list[dict[str, Any]]) -> Any:
    """The text of the only message of a user; else the messages, without the system's."""
    others = [message for message in messages if message.get("role") not in ("system", "developer")]
    if len(others) == 1 and isinstance(others[0].get("content"), str):
        return others[0]["content"] or None
    return others or None


def _output(tops: list[Span], calls: list[Span]) -> Any:
    """The answer of the last agent at the top; else the last answer of a model."""
    for span in reversed([span for span in tops if span.kind == "agent"]):
        messages = chat_messages(span.attributes.get(names.OUTPUT_MESSAGES))
        if messages:
            return _answer(messages[-1])
        if span.attributes.get(names.OUTPUT_VALUE) is not None:
            return span.attributes[names.OUTPUT_VALUE]
    ended = sorted(calls, key=_end, reverse=True)
    answers = [span.generation.response for span in ended if span.generation and span.generation.response]
    return _answer(answers[0]) if answers else None


def _answer(message: dict[str, Any]) -> Any:
    """The text of a message; one that has no text but calls tools as it is."""
    return text_of(message) or (message if message.get("tool_calls") else None)


def _failure(root: Span | None, tops: list[Span], calls: list[Span], ordered: list[Span]) -> Failure | None:
    """Of the root, else of the last agent at the top. An agent that swallowed the infrastructure's failure of its
    last model call has no valid result either."""
    agents = [span for span in tops if span.kind == "agent"] or ([] if root is not None else tops)
    candidates = [span for span in (root, *agents[-1:]) if span is not None]
    failed = next((span.failure for span in candidates if span.failure is not None), None)
    last = max(calls, key=_end, default=None)
    if failed is None and last is not None and last.failure is not None and last.failure.fault == "infrastructure":
        return last.failure
    if failed is None or failed.type != "agent_error":
        return failed
    # Where a failure came up from further down, the one there knows the type and the fault.
    known = [span.failure for span in ordered if span.failure is not None and span.failure.type != "agent_error"]
    causes = [cause for cause in known if cause.exception is not None and cause.exception == failed.exception]
    return causes[-1] if causes else failed


def _task_id(input: Any) -> str:
    return digest(json.dumps(input, sort_keys=True, ensure_ascii=False, default=str))
