"""What the span of a model call says: the request, before it is sent, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.attributes import without_none
from agentlightning.recording import Recorder, guarded
from agentlightning.records import Generation, Policy, Span
from agentlightning_openai.request import Operation, attributes_of, endpoint_of, generation_of
from agentlightning_openai.response import Answer, Choice, write_choice


@guarded
def write_request(span: Span, operation: Operation, body: Mapping[str, Any], policy: Policy | None = None) -> None:
    """Writes what the request says; ``policy`` is the one that is to answer."""
    attributes = attributes_of(operation, body)
    span.attributes.update(attributes)
    if "replay" in body:
        span.attributes[semconv.REPLAYED] = True
    span.name = f"{attributes[semconv.OPERATION_NAME]} {body.get('model', '')}".rstrip()
    if operation != "embeddings":
        span.generation = generation_of(operation, body)
        if policy is not None:
            span.generation.policy, span.generation.policy_version = policy.name, policy.version


@guarded
def write_endpoint(span: Span, client: Any, url: str, *, is_redirected: bool) -> None:
    """Writes where the request goes, and whether that is elsewhere than the agent's client would send it."""
    span.attributes.update(endpoint_of(client, url))
    if is_redirected:
        span.attributes[semconv.REDIRECTED] = True


@guarded
def write_answer(
    recorder: Recorder, span: Span, operation: Operation, answer: Answer, *, retries: int, at: float | None
) -> None:
    """Writes what the answer says, which ended ``at`` that time or now. Each choice beyond the first is a span of its
    own beside it, with the same request; usage is counted on the first."""
    reasons = [choice.finish_reason for choice in answer.choices if choice.finish_reason is not None]
    failure, usage = answer.failure, answer.usage
    attributes = {
        semconv.RESPONSE_ID: answer.id,
        semconv.RESPONSE_MODEL: answer.model,
        semconv.RESPONSE_FINISH_REASONS: reasons or None,
        semconv.RESEND_COUNT: retries or None,
        semconv.ERROR_TYPE: (failure.exception or failure.type) if failure is not None else None,
        semconv.USAGE_INPUT_TOKENS: usage.input_tokens if usage is not None else None,
        semconv.USAGE_OUTPUT_TOKENS: usage.output_tokens if usage is not None else None,
    }
    span.attributes.update(without_none(attributes))
    generation = span.generation
    if generation is None:
        return
    if isinstance(answer.policy_version, int):
        generation.policy_version = answer.policy_version
    first, *others = _prompts(generation, operation, len(answer.choices)) or [generation.messages]
    for messages, choice in zip(others, answer.choices[1:], strict=True):
        own = msgspec.structs.replace(generation, messages=messages)
        _write_beside(recorder, span, own, answer, choice, at)
    generation.messages = first
    if answer.choices:
        write_choice(generation, answer, answer.choices[0])
    generation.usage = usage


def _prompts(generation: Generation, operation: Operation, choices: int) -> list[list[dict[str, Any]]]:
    """What each choice answers: a text completion may hold several prompts, with as many choices each."""
    messages = generation.messages
    if operation != "text_completion" or not messages:
        return [messages] * choices
    return [[messages[index * len(messages) // choices]] for index in range(choices)]


def _write_beside(
    recorder: Recorder, span: Span, generation: Generation, answer: Answer, choice: Choice, at: float | None
) -> None:
    beside = recorder.start("llm", span.name, parent=span, agent=span.agent, attributes=dict(span.attributes))
    beside.parent_id, beside.started_at = span.parent_id, span.started_at
    beside.generation = generation
    write_choice(generation, answer, choice)
    recorder.end(beside, at=at)
