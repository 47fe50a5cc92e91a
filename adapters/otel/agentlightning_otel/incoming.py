"""One received span, or one received event → our spans: itself, its further answers, and its rewards.

Their ids follow from the trace's and the span's, so what is received twice is recorded once. ``index``,
``agent`` and ``attempt`` are known only with the whole trace: `agentlightning_otel.trace` sets them.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from agentlightning import semconv
from agentlightning.records import Generation, Span, Usage
from agentlightning_otel import conventions as names
from agentlightning_otel.checks import conforming
from agentlightning_otel.emitters import translated
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.failures import failure_of_span
from agentlightning_otel.messages import FINISH_REASONS, as_json, parsed
from agentlightning_otel.rewards import is_evaluation, only_evaluates, reward_of, rewards_in
from agentlightning_otel.said import Said, said_in
from agentlightning_otel.text import clipped
from agentlightning_otel.wire import attributes_of, to_python

NANOSECOND = 1e-9
LATEST = 2**63 - 1
"""Nanoseconds: the year 2262. What is beyond was a negative number or none at all."""


def ids_of(trace_id: bytes, span_id: bytes) -> tuple[str, str]:
    """Both ids in hexadecimal. Raises `PayloadError` where one is missing or has another length."""
    if len(trace_id) != 16 or not any(trace_id):
        raise PayloadError(f"trace id {trace_id.hex() or 'missing'}: expected 16 bytes, not all zero")
    if len(span_id) != 8 or not any(span_id):
        raise PayloadError(
            f"span id {span_id.hex() or 'missing'} in trace {trace_id.hex()}: expected 8 bytes, not all zero"
        )
    return trace_id.hex(), span_id.hex()


def read_span(span: OtlpSpan, dropped: list[str] | None = None) -> list[Span]:
    """The spans that a span makes; the first is the span itself. Raises `PayloadError`.

    What of it makes no sense is left out; ``dropped``, where given, is told of it.
    """
    dropped = [] if dropped is None else dropped
    where = f"span {clipped(span.name, 80)!r}"
    trace, id = ids_of(span.trace_id, span.span_id)
    started, ended = _times(span, id, trace, where, dropped)
    events = [
        (event.name, event.time_unix_nano, conforming(attributes_of(event.attributes), where, dropped))
        for event in span.events
    ]
    attributes = conforming(translated(attributes_of(span.attributes)), where, dropped)
    read = _read(
        Span(
            id=id,
            rollout_id=trace,
            parent_id=_parent(span, where, dropped),
            kind="annotation",
            name=span.name,
            started_at=started * NANOSECOND,
            ended_at=ended * NANOSECOND if ended else None,
        ),
        attributes,
        said_in(attributes, [(name, told) for name, _, told in events]),
    )
    found = read[0]
    found.failure = failure_of_span(
        found.kind,
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        attributes,
        [told for name, _, told in events if name == "exception"],
    )
    if only_evaluates(attributes):
        found.kind, found.name = "reward", str(attributes[semconv.EVALUATION_NAME])
        found.reward = reward_of(attributes, at=found.started_at)
        return [found]
    return [*read, *_rewards(found, attributes, events)]


def read_event(record: LogRecord, dropped: list[str] | None = None) -> list[Span]:
    """The spans that an event of the logs makes: a reward, or what a model call said. None for any other.

    What a model call said is a span with the call's own id that has not ended: the call's own is put together with
    it. ``dropped``, where given, is told of what was left out. Raises `PayloadError`.
    """
    name, told = _event(record, [] if dropped is None else dropped)
    if not any(record.trace_id):
        return []
    nanoseconds = record.time_unix_nano or record.observed_time_unix_nano
    if nanoseconds > LATEST:
        raise PayloadError(f"event {name!r} in trace {record.trace_id.hex()}: its time is beyond the year 2262")
    if name == names.EVALUATION_EVENT and is_evaluation(told):
        trace, _ = ids_of(record.trace_id, record.span_id or b"\1" * 8)
        return [_reward_span(trace, record.span_id.hex() or None, told, nanoseconds * NANOSECOND, nanoseconds, 0)]
    if name not in (names.DETAILS_EVENT, names.CHOICE_EVENT, *names.MESSAGE_EVENTS):
        return []
    trace, id = ids_of(record.trace_id, record.span_id)
    begun = Span(id=id, rollout_id=trace, kind="llm", name="chat", started_at=nanoseconds * NANOSECOND)
    if name == names.DETAILS_EVENT:
        told = {semconv.OPERATION_NAME: "chat", **told}
        return _read(begun, told, said_in(told, []))
    begun.attributes = {names.EVENTS: {f"{nanoseconds:020} {_derived(name, as_json(told))}": [name, told]}}
    return [begun]


def generation_of(attributes: Mapping[str, Any], said: Said, answer: dict[str, Any] | None) -> Generation:
    """What a model call says; its parameters and counts are in ``attributes``, under our names."""
    tokens = [attributes.get(name) for name in (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS)]
    reasons = parsed(attributes.get(semconv.RESPONSE_FINISH_REASONS))
    reason = said.finish_reasons.get(0) or (reasons[0] if isinstance(reasons, list) and reasons else None)
    model = attributes.get(semconv.RESPONSE_MODEL) or attributes.get(semconv.REQUEST_MODEL)
    return Generation(
        messages=said.messages,
        tools=said.tools,
        response=answer,
        model=str(model) if model else None,
        finish_reason=FINISH_REASONS.get(str(reason), str(reason)) if reason else None,
        usage=Usage(input_tokens=tokens[0] or 0, output_tokens=tokens[1] or 0) if any(tokens) else None,
        temperature=_finite(attributes.get(semconv.REQUEST_TEMPERATURE), 1.0),
    )


def _event(record: LogRecord, dropped: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of an event, and what its body and attributes tell."""
    attributes = attributes_of(record.attributes)
    body = to_python(record.body)
    name = record.event_name or str(attributes.pop("event.name", ""))
    told = attributes | (body if isinstance(body, dict) else {})
    return name, conforming(told, f"event {clipped(name, 80)!r}", dropped)


def _times(span: OtlpSpan, id: str, trace: str, where: str, dropped: list[str]) -> tuple[int, int]:
    """When a span began and ended, in nanoseconds; 0 where it has not ended."""
    started, ended = span.start_time_unix_nano, span.end_time_unix_nano
    if not started or started > LATEST:
        raise PayloadError(f"span {id} in trace {trace} has {'no' if not started else 'an impossible'} start time")
    if ended and not started <= ended <= LATEST:
        dropped.append(f"the end of {where} is {'before its start' if ended < started else 'impossible'}")
        ended = started
    return started, ended


def _parent(span: OtlpSpan, where: str, dropped: list[str]) -> str | None:
    parent = span.parent_span_id
    if not any(parent):
        return None
    if len(parent) != 8:
        dropped.append(f"the parent's id of {where} is {clipped(parent.hex(), 40)}: expected 8 bytes")
        return None
    return parent.hex()


def _read(span: Span, attributes: dict[str, Any], said: Said) -> list[Span]:
    """The span with what its attributes say, and a span for each answer beyond the first."""
    kind, structure = names.meaning(attributes)
    span.kind = kind
    span.attributes = {
        name: value for name, value in names.renamed(attributes).items() if not said.has_read(name)
    } | said.attributes
    operation = names.operation(attributes)
    if operation is not None:
        span.attributes[semconv.OPERATION_NAME] = operation
    if structure is not None:
        span.attributes[semconv.STRUCTURE] = structure
    _name(span)
    if kind != "llm" or operation == "embeddings":
        return [span]
    span.generation = generation_of(span.attributes, said, said.answers[0] if said.answers else None)
    return [span, *(_further(span, said, answer, place) for place, answer in enumerate(said.answers[1:], 1))]


def _name(span: Span) -> None:
    given = span.attributes
    if span.kind == "tool":
        span.name = str(given.get(semconv.TOOL_NAME) or span.name.removeprefix("execute_tool "))
    elif span.kind == "agent" and given.get(semconv.STRUCTURE) == "agent":
        span.name = str(given.get(semconv.AGENT_NAME) or span.name.removeprefix("invoke_agent "))
        given.setdefault(semconv.AGENT_NAME, span.name)
    elif span.kind == "agent":
        span.name = str(given.get(names.WORKFLOW_NAME) or span.name.removeprefix("invoke_workflow "))


def _further(span: Span, said: Said, answer: dict[str, Any], place: int) -> Span:
    """A choice beyond the first: a span beside the call's, with the same request and no usage."""
    request = {name: value for name, value in span.attributes.items() if name.startswith("gen_ai.request.")}
    reason = said.finish_reasons.get(place)
    return Span(
        id=_derived(span.rollout_id, span.id, "choice", place),
        rollout_id=span.rollout_id,
        parent_id=span.parent_id,
        kind="llm",
        name=span.name,
        started_at=span.started_at,
        ended_at=span.ended_at,
        attributes=request,
        generation=Generation(
            messages=said.messages,
            tools=said.tools,
            response=answer,
            model=span.generation.model if span.generation else None,
            finish_reason=FINISH_REASONS.get(reason, reason) if reason else None,
            temperature=span.generation.temperature if span.generation else 1.0,
        ),
    )


def _rewards(
    span: Span, attributes: Mapping[str, Any], events: list[tuple[str, int, dict[str, Any]]]
) -> Iterator[Span]:
    copies: Counter[tuple[str, int]] = Counter()
    for name, nanoseconds, told in events:
        if name == names.EVALUATION_EVENT and is_evaluation(told):
            key = (str(told[semconv.EVALUATION_NAME]), nanoseconds)
            yield _reward_span(span.rollout_id, span.id, told, nanoseconds * NANOSECOND, nanoseconds, copies[key])
            copies[key] += 1
    for place, evaluated in enumerate(rewards_in(attributes)):
        yield _reward_span(span.rollout_id, span.id, evaluated, span.ended_at or span.started_at, "attribute", place)


def _reward_span(trace: str, parent: str | None, told: Mapping[str, Any], at: float, *identity: object) -> Span:
    """``identity`` tells it from the span's other rewards of its name."""
    reward = reward_of(told, at=at)
    return Span(
        id=_derived(trace, parent, "reward", reward.name, *identity),
        rollout_id=trace,
        parent_id=parent,
        kind="reward",
        name=reward.name,
        started_at=at,
        ended_at=at,
        reward=reward,
    )


def _derived(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(errors="replace"), digest_size=8).hexdigest()


def _finite(value: Any, default: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default
