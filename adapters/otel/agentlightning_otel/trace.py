"""A trace put together: pieces merged in whatever order they come, and what the whole says of its rollout.

Pure functions on the spans of one trace, by id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Record, Reward, Span
from agentlightning_otel import conventions as names
from agentlightning_otel.incoming import generation_of
from agentlightning_otel.messages import chat_messages, text_of
from agentlightning_otel.said import said_in


class Outcome(Record, kw_only=True):
    """What a trace says of its rollout. ``task_id`` is None where nothing tells what it was asked."""

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


def add(spans: dict[str, Span], pieces: Iterable[Span]) -> list[Span]:
    """Adds pieces to a trace; returns the spans that are new or changed by them.

    A piece that is there already changes nothing. Indices follow the order in which spans began, parents
    before their children; a span without an agent's name of its own has its parent's.
    """
    before = {id: (span.index, span.agent) for id, span in spans.items()}
    changed: set[str] = set()
    for piece in pieces:
        known = spans.get(piece.id)
        whole = _with_events(piece if known is None else _merged(known, piece))
        if known is None or whole != known:
            spans[piece.id] = whole
            changed.add(piece.id)
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
    return min(
        (
            span
            for span in spans.values()
            if span.parent_id is None and span.kind != "reward" and span.ended_at is not None
        ),
        key=lambda span: span.index,
        default=None,
    )


def outcome_of(spans: Mapping[str, Span]) -> Outcome:
    """What the trace as it is says of its rollout. Without a root, its topmost spans speak for it."""
    if not spans:
        return Outcome(failure=NOTHING_CAME)
    ordered = sorted(spans.values(), key=lambda span: span.index)
    acted = [span for span in ordered if span.kind not in ("reward", "annotation")]
    tops = [span for span in acted if _nearest_actor(span, spans) is None]
    calls = [span for span in acted if span.generation is not None]
    root = root_of(spans)
    given = next((said for span in tops if (said := _input(span)) is not None), None)
    if given is None:
        given = next((said for span in calls if (said := _asked(span.generation)) is not None), None)
    named = next((id for span in ordered if (id := span.attributes.get(names.TASK_ID)) is not None), None)
    return Outcome(
        task_id=str(named) if named is not None else (None if given is None else _digest(given)),
        input=given,
        output=_output(tops, calls),
        failure=_failure(root, tops, calls, ordered),
        rewards=[_placed(span.reward, span, spans) for span in ordered if span.reward is not None],
        started_at=min(span.started_at for span in ordered),
        ended_at=max(span.ended_at or span.started_at for span in ordered),
    )


def _merged(known: Span, piece: Span) -> Span:
    """Both: of what both tell, the one that has ended is right, and of two that have, the later received."""
    first, second = (known, piece) if piece.ended_at is not None or known.ended_at is None else (piece, known)
    return msgspec.structs.replace(
        second,
        parent_id=second.parent_id or first.parent_id,
        attributes={**first.attributes, **second.attributes, **_events(first, second)},
        generation=_joined(first.generation, second.generation),
        reward=second.reward or first.reward,
        failure=second.failure or first.failure,
        attempt=known.attempt,
        index=known.index,
        agent=known.agent,
    )


def _events(*spans: Span) -> dict[str, Any]:
    events = {key: told for span in spans for key, told in span.attributes.get(names.EVENTS, {}).items()}
    return {names.EVENTS: events} if events else {}


def _with_events(span: Span) -> Span:
    """The span with what was said in the events that came apart from it so far."""
    events = span.attributes.get(names.EVENTS)
    if not events:
        return span
    said = said_in({semconv.OPERATION_NAME: "chat"}, [(name, told) for _, (name, told) in sorted(events.items())])
    told = generation_of(span.attributes, said, said.answers[0] if said.answers else None)
    return msgspec.structs.replace(span, generation=_joined(span.generation, told))


def _joined(first: Generation | None, second: Generation | None) -> Generation | None:
    if first is None or second is None:
        return second or first
    return msgspec.structs.replace(
        second,
        messages=second.messages or first.messages,
        tools=second.tools or first.tools,
        response=second.response or first.response,
        model=second.model or first.model,
        finish_reason=second.finish_reason or first.finish_reason,
        usage=second.usage or first.usage,
    )


def _in_order(spans: Mapping[str, Span]) -> list[Span]:
    """By when they began; where clocks differ, never before the span that called them."""
    begun: dict[str, tuple[float, int]] = {}
    for span in spans.values():
        path: dict[str, Span] = {}
        above: Span | None = span
        while above is not None and above.id not in begun and above.id not in path:
            path[above.id] = above
            above = spans.get(above.parent_id or "")
        at, depth = begun.get(above.id, (0.0, -1)) if above is not None else (0.0, -1)
        for link in reversed(path.values()):
            at, depth = max(at, link.started_at), depth + 1
            begun[link.id] = (at, depth)
    return sorted(spans.values(), key=lambda span: (*begun[span.id], span.id))


def _nearest_actor(span: Span, spans: Mapping[str, Span]) -> Span | None:
    """The span that called this one, past annotations."""
    seen = {span.id}
    above = spans.get(span.parent_id or "")
    while above is not None and above.kind == "annotation" and above.id not in seen:
        seen.add(above.id)
        above = spans.get(above.parent_id or "")
    return None if above is None or above.kind == "annotation" or above.id in seen else above


def _input(span: Span) -> Any:
    if span.kind != "agent":
        return None
    messages = chat_messages(span.attributes.get(names.INPUT_MESSAGES))
    return _question(messages) if messages else span.attributes.get("input.value")


def _asked(said: Generation | None) -> Any:
    return _question(said.messages) if said is not None and said.messages else None


def _question(messages: list[dict[str, Any]]) -> Any:
    """The text of the only message of a user; else the messages, without the system's."""
    others = [message for message in messages if message.get("role") not in ("system", "developer")]
    if len(others) == 1 and isinstance(others[0].get("content"), str):
        return others[0]["content"] or None
    return others or None


def _output(tops: list[Span], calls: list[Span]) -> Any:
    """What the last agent at the top answered; else the last answer of a model."""
    for span in reversed([span for span in tops if span.kind == "agent"]):
        messages = chat_messages(span.attributes.get(names.OUTPUT_MESSAGES))
        if messages:
            return _answer(messages[-1])
        if span.attributes.get("output.value") is not None:
            return span.attributes["output.value"]
    ended = sorted(calls, key=lambda span: span.ended_at or span.started_at, reverse=True)
    answers = [span.generation.response for span in ended if span.generation and span.generation.response]
    return _answer(answers[0]) if answers else None


def _answer(message: dict[str, Any]) -> Any:
    """The text of a message; one that says nothing in words but calls tools as it is."""
    return text_of(message) or (message if message.get("tool_calls") else None)


def _failure(root: Span | None, tops: list[Span], calls: list[Span], ordered: list[Span]) -> Failure | None:
    """Of the root, else of the last agent at the top. An agent that swallowed the infrastructure's failure of its
    last model call has no valid result either."""
    agents = [span for span in tops if span.kind == "agent"] or ([] if root is not None else tops)
    failed = next(
        (span.failure for span in (root, *agents[-1:]) if span is not None and span.failure is not None), None
    )
    last = max(calls, key=lambda span: span.ended_at or span.started_at, default=None)
    if failed is None and last is not None and last.failure is not None and last.failure.fault == "infrastructure":
        return last.failure
    return _cause(failed, ordered)


def _cause(failure: Failure | None, ordered: list[Span]) -> Failure | None:
    """Where a failure came up from further down: the one there, which knows the fault."""
    if failure is None or failure.type != "agent_error":
        return failure
    causes = [
        span.failure
        for span in ordered
        if span.failure is not None
        and span.failure.type != "agent_error"
        and span.failure.exception is not None
        and span.failure.exception == failure.exception
    ]
    return causes[-1] if causes else failure


def _placed(reward: Reward, span: Span, spans: Mapping[str, Span]) -> Reward:
    """The reward with the span of its step: none where it is for the whole, the root, or for no span known."""
    target = spans.get(span.parent_id or "")
    whole = target is None or target.parent_id is None
    return msgspec.structs.replace(reward, span_id=None if whole or target is None else target.id)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()
