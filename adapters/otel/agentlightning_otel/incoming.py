"""An export request → our spans: of each received span or event itself, its further answers, and its rewards.

Their ids follow from the trace's and the span's, so what is received twice is recorded once. ``index``,
``agent`` and ``attempt`` are known only with the whole trace: `agentlightning_otel.trace` sets them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from agentlightning import semconv
from agentlightning.loading import explain
from agentlightning.records import Generation, Reward, Span, Usage
from agentlightning_otel import conventions as names
from agentlightning_otel.content import Content, content_of
from agentlightning_otel.emitters import translated
from agentlightning_otel.errors import PayloadError
from agentlightning_otel.failures import failure_of_span
from agentlightning_otel.messages import FINISH_REASONS, as_json, parsed
from agentlightning_otel.validation import finite, valid_attributes
from agentlightning_otel.values import attributes_of, digest, shortened, to_python

logger = logging.getLogger(__name__)

Attributes = Mapping[str, Any]
Event = tuple[str, int, dict[str, Any]]
"""Name, nanoseconds, attributes."""

UNKNOWN_SERVICE = "unknown_service"
SPAN_BYTES = 2000
"""What a span takes in memory beside its content, about."""
PARSED_SIZE = 3
"""How much larger messages are in memory than as JSON, about."""
NANOSECOND = 1e-9
LATEST = 2**63 - 1
"""Nanoseconds: the year 2262. What is beyond was a negative number or none at all."""
_EVALUATIONS = ("evaluations", "annotations", "trace.evaluations", "trace.annotations")
"""OpenInference's flattened lists of evaluations."""


class ReceivedSpan(NamedTuple):
    """A span, and the service and resource it came from; ``size`` is about the bytes it takes in memory."""

    span: Span
    service: str
    resource: dict[str, Any]
    gen_ai: bool
    size: int


class Received(NamedTuple):
    """The content of a request; ``rejected`` names each span that could not be used and why, ``dropped`` each part of
    a span."""

    spans: list[ReceivedSpan]
    rejected: list[str]
    dropped: list[str]


def read_traces(request: ExportTraceServiceRequest) -> Received:
    """The spans of a request."""
    received = Received([], [], [])
    for group in request.resource_spans:
        spans = [span for scope in group.scope_spans for span in scope.spans]
        _add(received, group, read_span, [(span, span.name) for span in spans])
    return received


def read_logs(request: ExportLogsServiceRequest) -> Received:
    """The spans that the GenAI events of a request make; other log records are passed over."""
    received = Received([], [], [])
    for group in request.resource_logs:
        records = [record for scope in group.scope_logs for record in scope.log_records]
        _add(received, group, read_event, [(record, record.event_name) for record in records])
    return received


def _add(
    received: Received, group: Any, read: Callable[[Any, list[str]], list[Span]], entries: list[tuple[Any, str]]
) -> None:
    resource = valid_attributes(attributes_of(group.resource.attributes), "the resource", received.dropped)
    service = str(resource.get("service.name") or UNKNOWN_SERVICE)
    for entry, name in entries:
        try:
            spans = read(entry, received.dropped)
        except PayloadError as error:
            received.rejected.append(f"{shortened(name, 80)!r}: {error}")
            continue
        except Exception as error:
            logger.exception("a span could not be read")
            received.rejected.append(f"{shortened(name, 80)!r}: it cannot be read: {shortened(explain(error))}")
            continue
        for span in spans:
            gen_ai = span.kind != "annotation" or names.is_gen_ai(span.attributes)
            size = entry.ByteSize() * (PARSED_SIZE if span.generation is not None else 1)
            received.spans.append(ReceivedSpan(span, service, resource, gen_ai, size // len(spans) + SPAN_BYTES))


def read_span(span: OtlpSpan, dropped: list[str] | None = None) -> list[Span]:
    """The spans that a span makes; the first is the span itself. Raises `PayloadError`.

    What of it makes no sense is left out and, where given, named in ``dropped``.
    """
    dropped = [] if dropped is None else dropped
    where = f"span {shortened(span.name, 80)!r}"
    trace, id = _ids(span.trace_id, span.span_id)
    started, ended = _times(span, id, trace, where, dropped)
    events: list[Event] = [
        (event.name, event.time_unix_nano, valid_attributes(attributes_of(event.attributes), where, dropped))
        for event in span.events
    ]
    attributes = valid_attributes(translated(attributes_of(span.attributes)), where, dropped)
    made = Span(
        id=id,
        rollout_id=trace,
        parent_id=_parent_id(span, where, dropped),
        kind="annotation",
        name=span.name,
        started_at=started * NANOSECOND,
        ended_at=ended * NANOSECOND if ended else None,
    )
    spans = _filled(made, attributes, content_of(attributes, [(name, event) for name, _, event in events]))
    made.failure = failure_of_span(
        made.kind,
        span.status.code == Status.STATUS_CODE_ERROR,
        span.status.message,
        attributes,
        [event for name, _, event in events if name == "exception"],
    )
    if is_evaluation(attributes) and names.meaning(attributes)[0] == "annotation":  # an event sent as a span
        made.kind, made.name = "reward", str(attributes[semconv.EVALUATION_NAME])
        made.reward = _reward(attributes, at=made.started_at)
        return [made]
    return [*spans, *_rewards(made, attributes, events)]


def read_event(record: LogRecord, dropped: list[str] | None = None) -> list[Span]:
    """The spans that an event of the logs makes: a reward, or the content of a model call. None for any other.

    The content of a model call is a span with the call's own id that has not ended: the call's own is merged with
    it. ``dropped``, where given, names what was left out. Raises `PayloadError`.
    """
    attributes, body = attributes_of(record.attributes), to_python(record.body)
    name = record.event_name or str(attributes.pop("event.name", ""))
    attributes |= body if isinstance(body, dict) else {}
    event = valid_attributes(attributes, f"event {shortened(name, 80)!r}", [] if dropped is None else dropped)
    if not any(record.trace_id):
        return []
    nanoseconds = record.time_unix_nano or record.observed_time_unix_nano
    if nanoseconds > LATEST:
        raise PayloadError(f"event {name!r} in trace {record.trace_id.hex()}: its time is beyond the year 2262")
    if name == names.EVALUATION_EVENT and is_evaluation(event):
        trace, _ = _ids(record.trace_id, record.span_id or b"\1" * 8)
        return [_reward_span(trace, record.span_id.hex() or None, event, nanoseconds * NANOSECOND, nanoseconds, 0)]
    if name not in (names.DETAILS_EVENT, names.CHOICE_EVENT, *names.MESSAGE_EVENTS):
        return []
    trace, id = _ids(record.trace_id, record.span_id)
    made = Span(id=id, rollout_id=trace, kind="llm", name="chat", started_at=nanoseconds * NANOSECOND)
    if name == names.DETAILS_EVENT:
        event = {semconv.OPERATION_NAME: "chat", **event}
        return _filled(made, event, content_of(event, []))
    made.attributes = {names.EVENTS: {f"{nanoseconds:020} {digest(name, as_json(event))}": [name, event]}}
    return [made]


def generation_of(attributes: Attributes, content: Content, answer: int = 0) -> Generation:
    """A model call with the answer of that index; its parameters and counts are in ``attributes``, under our names."""
    reasons = parsed(attributes.get(semconv.RESPONSE_FINISH_REASONS))
    own = reasons[0] if isinstance(reasons, list) and reasons and answer == 0 else None
    reason = content.finish_reasons.get(answer) or own
    input_tokens, output_tokens = (
        attributes.get(name) for name in (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS)
    )
    used = answer == 0 and (input_tokens or output_tokens)
    temperature = finite(attributes.get(semconv.REQUEST_TEMPERATURE))
    model = attributes.get(semconv.RESPONSE_MODEL) or attributes.get(semconv.REQUEST_MODEL)
    return Generation(
        messages=content.messages,
        tools=content.tools,
        response=content.answers[answer] if answer < len(content.answers) else None,
        model=str(model) if model else None,
        finish_reason=FINISH_REASONS.get(str(reason), str(reason)) if reason else None,
        usage=Usage(input_tokens=input_tokens or 0, output_tokens=output_tokens or 0) if used else None,
        temperature=1.0 if temperature is None else temperature,
    )


def is_evaluation(attributes: Attributes) -> bool:
    """Whether attributes have a score, or the reason why there is none. A label alone is no number."""
    scored = attributes.get(semconv.EVALUATION_SCORE) is not None or attributes.get(semconv.ERROR_TYPE) is not None
    return bool(attributes.get(semconv.EVALUATION_NAME)) and scored


def _ids(trace_id: bytes, span_id: bytes) -> tuple[str, str]:
    """Both ids in hexadecimal. Raises `PayloadError` where one is missing or has another length."""
    if len(trace_id) != 16 or not any(trace_id):
        raise PayloadError(f"trace id {trace_id.hex() or 'missing'}: expected 16 bytes, not all zero")
    if len(span_id) != 8 or not any(span_id):
        raise PayloadError(
            f"span id {span_id.hex() or 'missing'} in trace {trace_id.hex()}: expected 8 bytes, not all zero"
        )
    return trace_id.hex(), span_id.hex()


def _times(span: OtlpSpan, id: str, trace: str, where: str, dropped: list[str]) -> tuple[int, int]:
    """When a span began and ended, in nanoseconds; 0 where it has not ended."""
    started, ended = span.start_time_unix_nano, span.end_time_unix_nano
    if not started or started > LATEST:
        raise PayloadError(f"span {id} in trace {trace} has {'no' if not started else 'an impossible'} start time")
    if ended and not started <= ended <= LATEST:
        dropped.append(f"the end of {where} is {'before its start' if ended < started else 'impossible'}")
        ended = started
    return started, ended


def _parent_id(span: OtlpSpan, where: str, dropped: list[str]) -> str | None:
    parent = span.parent_span_id
    if not any(parent):
        return None
    if len(parent) != 8:
        dropped.append(f"the parent's id of {where} is {shortened(parent.hex(), 40)}: expected 8 bytes")
        return None
    return parent.hex()


def _filled(span: Span, attributes: dict[str, Any], content: Content) -> list[Span]:
    """The span with the content of its attributes, and a span for each answer beyond the first."""
    span.kind, structure = names.meaning(attributes)
    operation = names.operation(attributes)
    span.attributes = {
        name: value for name, value in names.renamed(attributes).items() if not content.has_read(name)
    } | content.attributes
    if operation is not None:
        span.attributes[semconv.OPERATION_NAME] = operation
    if structure is not None:
        span.attributes[semconv.STRUCTURE] = structure
    _set_name(span)
    if span.kind != "llm" or operation == "embeddings":
        return [span]
    span.generation = generation_of(span.attributes, content)
    return [span, *(_further_answer(span, content, index) for index in range(1, len(content.answers)))]


def _set_name(span: Span) -> None:
    get = span.attributes.get
    if span.kind == "tool":
        span.name = str(get(semconv.TOOL_NAME) or span.name.removeprefix("execute_tool "))
    elif span.kind == "agent" and get(semconv.STRUCTURE) == "agent":
        span.name = str(get(semconv.AGENT_NAME) or span.name.removeprefix("invoke_agent "))
        span.attributes.setdefault(semconv.AGENT_NAME, span.name)
    elif span.kind == "agent":
        span.name = str(get(names.WORKFLOW_NAME) or span.name.removeprefix("invoke_workflow "))


def _further_answer(span: Span, content: Content, index: int) -> Span:
    """A choice beyond the first: a span beside the call's, with the same request and no usage."""
    return Span(
        id=digest(span.rollout_id, span.id, "choice", index),
        rollout_id=span.rollout_id,
        parent_id=span.parent_id,
        kind="llm",
        name=span.name,
        started_at=span.started_at,
        ended_at=span.ended_at,
        attributes={name: value for name, value in span.attributes.items() if name.startswith("gen_ai.request.")},
        generation=generation_of(span.attributes, content, index),
    )


def _rewards(span: Span, attributes: Attributes, events: list[Event]) -> Iterator[Span]:
    copies: Counter[tuple[str, int]] = Counter()
    for name, nanoseconds, event in events:
        if name == names.EVALUATION_EVENT and is_evaluation(event):
            key = (str(event[semconv.EVALUATION_NAME]), nanoseconds)
            yield _reward_span(span.rollout_id, span.id, event, nanoseconds * NANOSECOND, nanoseconds, copies[key])
            copies[key] += 1
    for index, evaluation in enumerate(_evaluations(attributes)):
        yield _reward_span(span.rollout_id, span.id, evaluation, span.ended_at or span.started_at, "attribute", index)


def _evaluations(attributes: Attributes) -> Iterator[Attributes]:
    """Evaluations among a span's own attributes, by their GenAI names."""
    if is_evaluation(attributes):
        yield {name: value for name, value in attributes.items() if name != semconv.ERROR_TYPE}
    for prefix in _EVALUATIONS:
        key = prefix.rpartition(".")[2].removesuffix("s")
        for item in names.unflattened(attributes, prefix):
            evaluation = item.get(key) if isinstance(item, dict) else None
            if isinstance(evaluation, dict) and evaluation.get("name") and evaluation.get("score") is not None:
                yield {
                    semconv.EVALUATION_NAME: evaluation["name"],
                    semconv.EVALUATION_SCORE: evaluation["score"],
                    names.EVALUATION_LABEL: evaluation.get("label"),
                    semconv.EVALUATION_EXPLANATION: evaluation.get("explanation"),
                }


def _reward_span(trace: str, parent: str | None, evaluation: Attributes, at: float, *identity: object) -> Span:
    """``identity`` tells it from the span's other rewards of its name."""
    reward = _reward(evaluation, at=at)
    return Span(
        id=digest(trace, parent, "reward", reward.name, *identity),
        rollout_id=trace,
        parent_id=parent,
        kind="reward",
        name=reward.name,
        started_at=at,
        ended_at=at,
        reward=reward,
    )


def _reward(evaluation: Attributes, *, at: float) -> Reward:
    """The reward; its value is None where the score is no finite number."""
    reasons = (names.EVALUATION_LABEL, semconv.EVALUATION_EXPLANATION, semconv.ERROR_TYPE)
    weight = finite(evaluation.get(names.REWARD_WEIGHT))
    return Reward(
        name=str(evaluation[semconv.EVALUATION_NAME]),
        value=finite(evaluation.get(semconv.EVALUATION_SCORE)),
        weight=1.0 if weight is None else weight,
        step=evaluation.get(names.REWARD_STEP) is True,
        at=at,
        reason=": ".join(str(evaluation[name]) for name in reasons if evaluation.get(name)) or None,
    )
