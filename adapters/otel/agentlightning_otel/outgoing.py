"""A rollout → the spans of one OpenTelemetry trace, under the ``gen_ai.*`` names.

The trace's id follows from the rollout's and the spans keep theirs, so what is sent twice is there once. The
rollout itself is the root; rewards are ``gen_ai.evaluation.result`` events of the span they were given to, or of the
root.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task
from agentlightning_otel import conventions as names
from agentlightning_otel.messages import as_json, gen_ai_messages, gen_ai_tools
from agentlightning_otel.text import sendable
from agentlightning_otel.wire import pairs_of

Event = OtlpSpan.Event

_WORKFLOWS = ("graph", "team", "crew", "workflow", "chain")
"""Structures that are no agent, but what agents act in."""
_WRITTEN_AS_JSON = (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.SYSTEM_INSTRUCTIONS, names.TOOL_DEFINITIONS)
_THEIRS = {
    semconv.RETRIEVAL_QUERY: names.RETRIEVAL_QUERY,
    semconv.RETRIEVAL_DOCUMENTS: names.RETRIEVAL_DOCUMENTS,
    semconv.TIME_TO_FIRST_TOKEN: "gen_ai.response.time_to_first_chunk",
}
"""Where the conventions have a name for what core has named itself."""


def trace_id(rollout_id: str) -> bytes:
    """The 16 bytes of a rollout's trace: its own id where that is one, else derived from it."""
    return _id(rollout_id, 16)


def span_id(id: str) -> bytes:
    """The 8 bytes of a span: its own id where that is one, else derived from it."""
    return _id(id, 8)


def resource_of(run_id: str, service: str | None = None) -> Resource:
    """Where spans come from: the service is the run, unless another name is given."""
    return Resource(
        attributes=pairs_of(
            {
                "service.name": service or run_id,
                "service.namespace": "agentlightning",
                "telemetry.sdk.name": "agentlightning",
                "telemetry.sdk.language": "python",
                "telemetry.sdk.version": version("agentlightning"),
                names.RUN_ID: run_id,
            }
        )
    )


def scope() -> InstrumentationScope:
    """Who wrote the spans."""
    return InstrumentationScope(name="agentlightning_otel", version=version("agentlightning-otel"))


def otlp_spans(rollout: Rollout, spans: Sequence[Span], task: Task | None) -> Iterator[OtlpSpan]:
    """The rollout's root, then its spans by index."""
    sent = {span.id for span in spans if span.kind != "reward"}
    by_span: dict[str | None, list[Reward]] = {}
    for span in spans:
        if span.reward is not None:
            place = span.parent_id if span.reward.step and span.parent_id in sent else None
            by_span.setdefault(place, []).append(span.reward)
    during = {(reward.name, reward.at) for rewards in by_span.values() for reward in rewards}
    of_the_whole = [reward for reward in rollout.rewards if (reward.name, reward.at) not in during]
    trace, root = trace_id(rollout.id), span_id(f"rollout {rollout.id}")
    yield _root(rollout, spans, task, trace, root, [*by_span.get(None, ()), *of_the_whole])
    for span in sorted(spans, key=lambda span: span.index):
        if span.id in sent:
            parent = span_id(span.parent_id) if span.parent_id in sent and span.parent_id else root
            yield _span(span, trace, parent, by_span.get(span.id, ()))


def _root(
    rollout: Rollout, spans: Sequence[Span], task: Task | None, trace: bytes, id: bytes, rewards: Iterable[Reward]
) -> OtlpSpan:
    began = rollout.started_at or min((span.started_at for span in spans), default=rollout.created_at)
    ended = rollout.ended_at or max((span.ended_at or span.started_at for span in spans), default=began)
    attributes = {
        semconv.OPERATION_NAME: "invoke_workflow",
        names.WORKFLOW_NAME: "rollout",
        names.RUN_ID: rollout.run_id,
        names.ROLLOUT_ID: rollout.id,
        names.TASK_ID: rollout.task_id,
        "agentlightning.rollout.purpose": rollout.purpose,
        "agentlightning.rollout.step": rollout.step,
        "agentlightning.rollout.collection": rollout.collection,
        "agentlightning.rollout.sample": rollout.sample,
        "agentlightning.rollout.attempt": rollout.attempt,
        "agentlightning.rollout.status": rollout.status,
        "agentlightning.rollout.outcome": rollout.outcome,
        "agentlightning.rollout.total_reward": rollout.total_reward,
        names.INPUT_MESSAGES: _as_messages("user", task.input) if task is not None else None,
        names.OUTPUT_MESSAGES: _as_messages("assistant", rollout.output),
        **{f"agentlightning.resource.{name}": number for name, number in rollout.resources.items()},
    }
    return _made(
        OtlpSpan(trace_id=trace, span_id=id, name="invoke_workflow rollout", kind=OtlpSpan.SPAN_KIND_INTERNAL),
        (began, ended),
        {**attributes, **_error(rollout.failure)},
        rollout.failure,
        rewards,
    )


def _span(span: Span, trace: bytes, parent: bytes, rewards: Iterable[Reward]) -> OtlpSpan:
    attributes = {_THEIRS.get(name, name): value for name, value in span.attributes.items()}
    attributes |= {names.SPAN_KIND: span.kind, semconv.AGENT_NAME: span.agent, **_error(span.failure)}
    if span.generation is not None:
        attributes |= {name: value for name, value in _said(span.generation).items() if value is not None}
    operation, subject = _operation(span, attributes)
    if operation is not None:
        attributes[semconv.OPERATION_NAME] = operation
    if operation == "execute_tool":
        attributes.setdefault(semconv.TOOL_NAME, span.name)
    if operation == "invoke_workflow":
        attributes.setdefault(names.WORKFLOW_NAME, span.name)
    kind = OtlpSpan.SPAN_KIND_CLIENT if span.kind == "llm" else OtlpSpan.SPAN_KIND_INTERNAL
    return _made(
        OtlpSpan(
            trace_id=trace,
            span_id=span_id(span.id),
            parent_span_id=parent,
            name=sendable(f"{operation} {subject}" if operation is not None and subject else span.name),
            kind=kind,
        ),
        (span.started_at, span.ended_at or span.started_at),
        attributes,
        span.failure,
        rewards,
    )


def _operation(span: Span, attributes: dict[str, Any]) -> tuple[str | None, str | None]:
    """The GenAI operation, and what it is of."""
    given = attributes.get(semconv.OPERATION_NAME)
    if span.kind == "llm":
        model = attributes.get(semconv.REQUEST_MODEL) or attributes.get(semconv.RESPONSE_MODEL)
        return str(given or "chat"), str(model) if model else None
    if span.kind == "tool":
        return "execute_tool", span.name
    if span.kind == "retrieval":
        return str(given or "retrieval"), span.name
    if span.kind == "agent":
        workflow = span.attributes.get(semconv.STRUCTURE) in _WORKFLOWS
        return ("invoke_workflow" if workflow else str(given or "invoke_agent")), span.name
    return (str(given) if given else None), None


def _said(said: Generation) -> dict[str, Any]:
    exact = {
        "agentlightning.policy.name": said.policy,
        "agentlightning.policy.version": said.policy_version,
        "agentlightning.provenance": said.provenance,
    }
    answer = [{"role": "assistant", **said.response}] if said.response is not None else []
    answers = [{**message, "finish_reason": said.finish_reason or "stop"} for message in gen_ai_messages(answer)]
    return exact | {
        semconv.RESPONSE_MODEL: said.model,
        semconv.RESPONSE_FINISH_REASONS: [said.finish_reason] if said.finish_reason else None,
        semconv.USAGE_INPUT_TOKENS: said.usage.input_tokens if said.usage else _length(said.prompt_ids),
        semconv.USAGE_OUTPUT_TOKENS: said.usage.output_tokens if said.usage else _length(said.response_ids),
        names.INPUT_MESSAGES: gen_ai_messages(said.messages) or None,
        names.OUTPUT_MESSAGES: answers or None,
        names.TOOL_DEFINITIONS: gen_ai_tools(said.tools) or None,
    }


def _length(ids: Any) -> int | None:
    return None if ids is None else len(ids)


def _as_messages(role: str, value: Any) -> list[dict[str, Any]] | None:
    """A task's input or a rollout's output as messages: those it holds, else its text."""
    messages = value.get("messages") if isinstance(value, dict) else value
    if isinstance(messages, list) and messages and all(isinstance(it, dict) and "role" in it for it in messages):
        return gen_ai_messages(messages if role == "user" else messages[-1:])
    return None if value is None else gen_ai_messages([{"role": role, "content": as_json(value)}])


def _error(failure: Failure | None) -> dict[str, Any]:
    return {} if failure is None else {semconv.ERROR_TYPE: failure.type, names.FAULT: failure.fault}


def _made(
    span: OtlpSpan,
    times: tuple[float, float],
    attributes: dict[str, Any],
    failure: Failure | None,
    rewards: Iterable[Reward],
) -> OtlpSpan:
    span.start_time_unix_nano, span.end_time_unix_nano = map(_nanoseconds, times)
    span.attributes.extend(pairs_of({name: _sent(name, value) for name, value in attributes.items()}))
    if failure is not None:
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=sendable(failure.message)))
        span.events.append(_exception(failure, times[1]))
    span.events.extend(_evaluation(reward) for reward in rewards)
    return span


def _sent(name: str, value: Any) -> Any:
    """Backends take plain values and lists of them for attributes; what is nested is sent as JSON."""
    if isinstance(value, dict) or name in _WRITTEN_AS_JSON:
        return None if value is None else as_json(value)
    nested = isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value)
    return as_json(value) if nested else value


def _exception(failure: Failure, at: float) -> Event:
    told = {
        "exception.type": failure.exception or failure.type,
        "exception.message": failure.message,
        "exception.stacktrace": failure.traceback,
    }
    return Event(name="exception", time_unix_nano=_nanoseconds(at), attributes=pairs_of(told))


def _evaluation(reward: Reward) -> Event:
    told = {
        semconv.EVALUATION_NAME: reward.name,
        semconv.EVALUATION_SCORE: reward.value,
        semconv.EVALUATION_EXPLANATION: reward.reason,
        semconv.ERROR_TYPE: "reward_error" if reward.value is None else None,
        names.REWARD_WEIGHT: reward.weight if reward.weight != 1.0 else None,
        names.REWARD_STEP: reward.step or None,
    }
    return Event(name=names.EVALUATION_EVENT, time_unix_nano=_nanoseconds(reward.at), attributes=pairs_of(told))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _id(text: str, size: int) -> bytes:
    if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text) and text.strip("0"):
        return bytes.fromhex(text)
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=size).digest()
