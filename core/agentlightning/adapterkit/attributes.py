"""Attributes of spans by their OpenTelemetry names, and the values in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agentlightning import semconv


def agent_attributes(structure: str) -> dict[str, Any]:
    """Those of an ``agent`` span; ``structure`` is what it stands for in its framework, a ``node`` or ``team`` say."""
    return {semconv.OPERATION_NAME: "invoke_agent", semconv.STRUCTURE: structure}


def tool_attributes(name: str, call_id: str | None = None, arguments: Any = None) -> dict[str, Any]:
    """Those of a ``tool`` span that begins; ``call_id`` is the id that the model gave its call."""
    return without_none(
        {
            semconv.OPERATION_NAME: "execute_tool",
            semconv.TOOL_NAME: name,
            semconv.TOOL_TYPE: "function",
            semconv.TOOL_CALL_ID: call_id,
            semconv.TOOL_CALL_ARGUMENTS: arguments,
        }
    )


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in attributes.items() if value is not None}


def parse_arguments(arguments: Any) -> Any:
    """A tool call's arguments as what their JSON says; the text itself where it is none."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
