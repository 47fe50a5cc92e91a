"""AutoGen's values as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any

from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import BaseChatMessage, HandoffMessage, StructuredMessage
from pydantic import BaseModel


def plain_result(result: TaskResult) -> dict[str, Any]:
    """``{"messages": [{"role", "name", "type", "content"}, …], "stop_reason"}``; the last message is the answer."""
    return {"messages": [plain_message(message) for message in result.messages], "stop_reason": result.stop_reason}


def plain_message(message: Any) -> dict[str, Any]:
    """A message or event; ``content`` is its text, or a structured message's content as a mapping."""
    said = {
        "role": "user" if message.source == "user" else "assistant",
        "name": message.source,
        "type": type(message).__name__.partition("[")[0],
        "content": _content(message),
    }
    if isinstance(message, HandoffMessage):
        said["target"] = message.target
    return said


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


def _content(message: Any) -> Any:
    if isinstance(message, BaseChatMessage) and not isinstance(message, StructuredMessage):
        return message.to_text()
    return plain(message.content)
