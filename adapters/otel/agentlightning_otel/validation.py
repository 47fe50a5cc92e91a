"""Attributes whose value is not of the type that their name asks for are left out, and reported.

A name that nobody reads may have any value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning_otel import conventions as names
from agentlightning_otel.messages import parsed
from agentlightning_otel.values import shortened


class _Message(msgspec.Struct):
    """What is relied on in a message of the GenAI conventions or of the chat API."""

    role: str | None = None
    parts: list[dict[str, Any] | str] | None = None
    content: Any = None
    tool_calls: list[dict[str, Any]] | dict[str, Any] | str | None = None


def valid_attributes(attributes: Mapping[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    """The attributes that are as their names ask for; every other is added to ``dropped``, with ``where`` it was."""
    valid = {}
    for name, value in attributes.items():
        check = CHECKS.get(names.ALIASES.get(name, name))
        if check is None and name.startswith(FLATTENED) and _MEMBER.search(name):
            check = _text
        try:
            valid[name] = value if check is None or value is None else check(value)
        except ValueError as error:
            dropped.append(f"attribute {shortened(name, 80)} of {where}: {shortened(error)}")
    return valid


def finite(value: Any) -> float | None:
    """The number that a value is or writes out; None where it is none, or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _count(value: Any) -> int:
    """A whole number from 0 to 2⁶³ − 1; also one that came as a float or as text."""
    number = _number(value)
    if number < 0 or number != int(number) or number >= 2**63:
        raise ValueError(f"expected a count, got {value!r}")
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number, got {_kind(value)}")
    number = finite(value)
    if number is None:
        raise ValueError(f"expected a finite number, got {value!r}")
    return number


def _reserved(value: Any) -> Any:
    raise ValueError("it is written by the receiver alone")


def _text(value: Any) -> str:
    """Text; an id may have come as a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"expected text, got {_kind(value)}")


def _messages(value: Any) -> Any:
    """One message or several, or plain text for a user's."""
    value = parsed(value)
    if isinstance(value, str):
        return value
    return _of_type(value, _Message | list[_Message] if isinstance(value, dict | list) else list[_Message])


def _instructions(value: Any) -> Any:
    """Text, or a list of parts or messages."""
    value = parsed(value)
    return value if isinstance(value, list) and all(isinstance(part, str) for part in value) else _messages(value)


def _tools(value: Any) -> Any:
    """Definitions, some of them perhaps as JSON."""
    value = parsed(value)
    return _of_type([parsed(item) for item in value] if isinstance(value, list) else value, list[dict[str, Any]])


def _reasons(value: Any) -> Any:
    value = parsed(value)
    return _of_type([value] if isinstance(value, str) else value, list[str])


def _of_type(value: Any, expected: Any) -> Any:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value


def _kind(value: Any) -> str:
    return {bool: "a truth value", float: "a number", list: "a list", dict: "a map"}.get(type(value), repr(value))


_COUNTS = (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS, semconv.REQUEST_MAX_TOKENS)
_NUMBERS = (
    *(semconv.REQUEST_TEMPERATURE, semconv.REQUEST_TOP_P, semconv.TIME_TO_FIRST_TOKEN, names.REWARD_WEIGHT),
    *("gen_ai.request.top_k", "gen_ai.request.frequency_penalty", "gen_ai.request.presence_penalty"),
)
_TEXTS = (
    *(semconv.OPERATION_NAME, semconv.PROVIDER_NAME, semconv.AGENT_ID, semconv.AGENT_NAME, semconv.CONVERSATION_ID),
    *(semconv.TOOL_NAME, semconv.TOOL_TYPE, semconv.TOOL_DESCRIPTION, semconv.TOOL_CALL_ID, semconv.REQUEST_MODEL),
    *(semconv.RESPONSE_ID, semconv.RESPONSE_MODEL, semconv.EVALUATION_NAME, semconv.EVALUATION_EXPLANATION),
    *(semconv.ERROR_TYPE, semconv.STRUCTURE, names.WORKFLOW_NAME, names.TRANSFER_TARGET, names.EVALUATION_LABEL),
    *(names.SPAN_KIND, names.FAULT, names.TASK_ID, "service.name", "event.name", "exception.type"),
    *("exception.message", "exception.stacktrace", "llm.request.type", "llm.finish_reason"),
    *("openinference.span.kind", "traceloop.span.kind"),
)
CHECKS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_COUNTS, _count),
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_TEXTS, _text),
    names.EVENTS: _reserved,
    names.INPUT_MESSAGES: _messages,
    names.OUTPUT_MESSAGES: _messages,
    names.SYSTEM_INSTRUCTIONS: _instructions,
    names.TOOL_DEFINITIONS: _tools,
    semconv.RESPONSE_FINISH_REASONS: _reasons,
}
FLATTENED = ("gen_ai.prompt.", "gen_ai.completion.", "llm.input_messages.", "llm.output_messages.")
_MEMBER = re.compile(r"\.(role|id|tool_call_id|function\.name|tool_calls\.\d+\.name|finish_reason)$")
