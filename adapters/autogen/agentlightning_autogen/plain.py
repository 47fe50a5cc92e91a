"""AutoGen's values as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel

from agentlightning import semconv


def plain(value: Any) -> Any:
    """``value`` with every pydantic model and dataclass in it as a mapping; text for what is no data."""
    if value is None or isinstance(value, str | int | float | bool):
        return value.value if isinstance(value, Enum) else value
    if type(value) is dict:
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def tool_attributes(name: str, call_id: str | None, arguments: Any) -> dict[str, Any]:
    """The attributes of a tool that is about to run."""
    attributes = {
        semconv.OPERATION_NAME: "execute_tool",
        semconv.TOOL_NAME: name,
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: call_id,
        semconv.TOOL_CALL_ARGUMENTS: arguments,
    }
    return {key: value for key, value in attributes.items() if value is not None}


def parsed(arguments: Any) -> Any:
    """A call's arguments as a mapping, or the text that they should have been read from."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
