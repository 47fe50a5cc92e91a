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
from agentlightning_otel.values import pairs_of, utf8

_WORKFLOWS = ("graph", "team", "crew", "workflow", "chain")
"""Structures that are no agent, but what agents act in."""
_MESSAGES = (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES, names.SYSTEM_INSTRUCTIONS, names.TOOL_DEFINITIONS)
_STANDARD_NAMES = {
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
    rewards: dict[str | None, list[Reward]] = {}
    for span in spans:
        if span.reward is not None:
            target = span.parent_id if span.reward.step and span.parent_id in sent else None
            rewards.setdefault(target, []).append(span.reward)
    on_spans = {(reward.name, reward.at) for given in rewards.values() for reward in given}
    of_the_whole = [reward for reward in rollout.rewards if (reward.name, reward.at) not in on_spans]
    root = _root(rollout, spans, task, [*rewards.get(None, ()), *of_the_whole])
    yield root
    for span in sorted(spans, key=lambda span: span.index):
        if span.id in sent:
            parent = span_id(span.parent_id) if span.parent_id in sent and span.parent_id else root.span_id
            yield _span(span, root.trace_id, parent, rewards.get(span.id, ()))


def _root(rollout: Rollout, spans: Sequence[Span], task: Task | None, rewards: Iterable[Reward]) -> OtlpSpan:
    began = rollout.started_at or min((span.started_at for span in spans), default=rollout.created_at)
    ended = rollout.ended_at or max((span.ended_at or span.started_at for span in spans), default=began)
    root = OtlpSpan(
        trace_id=trace_id(rollout.id),
        span_id=span_id(f"rollout {rollout.id}"),
        name="invoke_workflow rollout",
        kind=OtlpSpan.SPAN_KIND_INTERNAL,
    )
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
        **{f"agentlightning.resource.{name}": digest for name, digest in rollout.resources.items()},
    }
    return _completed(root, (began, ended), attributes, rollout.failure, rewards)


def _span(span: Span, trace: bytes, parent: bytes, rewards: Iterable[Reward]) -> OtlpSpan:
    attributes = {_STANDARD_NAMES.get(name, name): value for name, value in span.attributes.items()}
    attributes |= {names.SPAN_KIND: span.kind, semconv.AGENT_NAME: span.agent}
    if span.generation is not None:
        attributes |= {name: value for name, value in _generation(span.generation).items() if value is not None}
    operation, subject = _operation(span, attributes)
    if operation is not None:
        attributes[semconv.OPERATION_NAME] = operation
    if operation == "execute_tool":
        attributes.setdefault(semconv.TOOL_NAME, span.name)
    if operation == "invoke_workflow":
        attributes.setdefault(names.WORKFLOW_NAME, span.name)
    made = OtlpSpan(
        trace_id=trace,
        span_id=span_id(span.id),
        parent_span_id=parent,
        name=utf8(f"{operation} {subject}" if operation is not None and subject else span.name),
        kind=OtlpSpan.SPAN_KIND_CLIENT if span.kind == "llm" else OtlpSpan.SPAN_KIND_INTERNAL,
    )
    return _completed(made, (span.started_at, span.ended_at or span.started_at), attributes, span.failure, rewards)


def _operation(span: Span, attributes: dict[str, Any]) -> tuple[str | None, str | None]:
    """The GenAI operation, and what it is of."""
    own = attributes.get(semconv.OPERATION_NAME)
    if span.kind == "llm":
        model = attributes.get(semconv.REQUEST_MODEL) or attributes.get(semconv.RESPONSE_MODEL)
        return str(own or "chat"), str(model) if model else None
    if span.kind == "tool":
        return "execute_tool", span.name
    if span.kind == "agent" and span.attributes.get(semconv.STRUCTURE) in _WORKFLOWS:
        return "invoke_workflow", span.name
    if span.kind in ("agent", "retrieval"):
        return str(own or ("invoke_agent" if span.kind == "agent" else "retrieval")), span.name
    return (str(own) if own else None), None


def _generation(call: Generation) -> dict[str, Any]:
    answer = [{"role": "assistant", **call.response}] if call.response is not None else []
    answers = [{**message, "finish_reason": call.finish_reason or "stop"} for message in gen_ai_messages(answer)]
    return {
        "agentlightning.policy.name": call.policy,
        "agentlightning.policy.version": call.policy_version,
        "agentlightning.provenance": call.provenance,
        semconv.RESPONSE_MODEL: call.model,
        semconv.RESPONSE_FINISH_REASONS: [call.finish_reason] if call.finish_reason else None,
        semconv.USAGE_INPUT_TOKENS: call.usage.input_tokens if call.usage else _length(call.prompt_ids),
        semconv.USAGE_OUTPUT_TOKENS: call.usage.output_tokens if call.usage else _length(call.response_ids),
        names.INPUT_MESSAGES: gen_ai_messages(call.messages) or None,
        names.OUTPUT_MESSAGES: answers or None,
        names.TOOL_DEFINITIONS: gen_ai_tools(call.tools) or None,
    }


def _length(ids: Any) -> int | None:
    return None if ids is None else len(ids)


def _as_messages(role: str, value: Any) -> list[dict[str, Any]] | None:
    """A task's input or a rollout's output as messages: those it holds, else its text."""
    messages = value.get("messages") if isinstance(value, dict) else value
    if isinstance(messages, list) and messages and all(isinstance(item, dict) and "role" in item for item in messages):
        return gen_ai_messages(messages if role == "user" else messages[-1:])
    return None if value is None else gen_ai_messages([{"role": role, "content": as_json(value)}])


def _completed(
    span: OtlpSpan,
    times: tuple[float, float],
    attributes: dict[str, Any],
    failure: Failure | None,
    rewards: Iterable[Reward],
) -> OtlpSpan:
    span.start_time_unix_nano, span.end_time_unix_nano = map(_nanoseconds, times)
    if failure is not None:
        attributes = {**attributes, semconv.ERROR_TYPE: failure.type, names.FAULT: failure.fault}
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=utf8(failure.message)))
        exception = {
            "exception.type": failure.exception or failure.type,
            "exception.message": failure.message,
            "exception.stacktrace": failure.traceback,
        }
        span.events.append(_event("exception", times[1], exception))
    span.attributes.extend(pairs_of({name: _attribute(name, value) for name, value in attributes.items()}))
    span.events.extend(_evaluation(reward) for reward in rewards)
    return span


def _attribute(name: str, value: Any) -> Any:
    """Backends take plain values and lists of them for attributes; what is nested is sent as JSON."""
    nested = isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value)
    if value is not None and (nested or isinstance(value, dict) or name in _MESSAGES):
        return as_json(value)
    return value


def _evaluation(reward: Reward) -> OtlpSpan.Event:
    attributes = {
        semconv.EVALUATION_NAME: reward.name,
        semconv.EVALUATION_SCORE: reward.value,
        semconv.EVALUATION_EXPLANATION: reward.reason,
        semconv.ERROR_TYPE: "reward_error" if reward.value is None else None,
        names.REWARD_WEIGHT: reward.weight if reward.weight != 1.0 else None,
        names.REWARD_STEP: reward.step or None,
    }
    return _event(names.EVALUATION_EVENT, reward.at, attributes)


def _event(name: str, at: float, attributes: dict[str, Any]) -> OtlpSpan.Event:
    return OtlpSpan.Event(name=name, time_unix_nano=_nanoseconds(at), attributes=pairs_of(attributes))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _id(text: str, size: int) -> bytes:
    if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", text) and text.strip("0"):
        return bytes.fromhex(text)
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=size).digest()
