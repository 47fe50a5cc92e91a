"""A call of a model, as an ``llm`` span has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from agentlightning import semconv
from agentlightning.adapterkit.attributes import without_none
from agentlightning.records import Generation, Span, Usage
from agentlightning_import.messages import Message
from agentlightning_import.values import first, number, text

_FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
"""Anthropic's word → the chat API's."""


class Answer(NamedTuple):
    """One answer of a model; several where more than one was asked for."""

    message: Message
    finish_reason: str | None = None


def fill_call(
    span: Span,
    *,
    messages: Sequence[Message],
    answers: Sequence[Answer],
    tools: Sequence[dict[str, Any]] = (),
    model: str | None = None,
    parameters: Mapping[str, Any] = {},
    usage: Usage | None = None,
) -> list[Span]:
    """Puts a call into its span; returns that, and a span for each answer beyond the first.

    ``parameters`` are those of the request, as providers name them.
    """
    temperature = number(first(parameters, "temperature"))
    answer = answers[0] if answers else None
    reason = answer.finish_reason if answer is not None else None
    reason = _FINISH_REASONS.get(reason, reason) if reason else None
    span.attributes |= without_none(
        {
            semconv.OPERATION_NAME: "chat",
            semconv.REQUEST_MODEL: text(parameters, "model", "model_name") or model,
            semconv.RESPONSE_MODEL: model,
            semconv.REQUEST_TEMPERATURE: temperature,
            semconv.REQUEST_TOP_P: number(first(parameters, "top_p")),
            semconv.REQUEST_MAX_TOKENS: number(first(parameters, "max_tokens", "max_completion_tokens")),
            semconv.REQUEST_SEED: number(first(parameters, "seed")),
            semconv.RESPONSE_FINISH_REASONS: [reason] if reason else None,
            semconv.USAGE_INPUT_TOKENS: usage.input_tokens if usage is not None else None,
            semconv.USAGE_OUTPUT_TOKENS: usage.output_tokens if usage is not None else None,
        }
    )
    span.generation = Generation(
        messages=list(messages),
        tools=list(tools),
        response=answer.message if answer is not None else None,
        model=model,
        finish_reason=reason,
        usage=usage,
        temperature=1.0 if temperature is None else temperature,
    )
    further = []
    for index, other in enumerate(answers[1:], start=1):
        generation = replace(span.generation, response=other.message, finish_reason=other.finish_reason, usage=None)
        further.append(replace(span, id=f"{span.id}-{index}", attributes={}, generation=generation))
    return [span, *further]


def usage_of(inputs: int, outputs: int) -> Usage | None:
    """None where neither was counted."""
    return Usage(input_tokens=inputs, output_tokens=outputs) if inputs or outputs else None
