"""LangChain's values as plain data: messages in the OpenAI shape, documents and models as dicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_openai_messages
from pydantic import BaseModel


def plain(value: Any) -> Any:
    """``value`` with every message, document, dataclass and pydantic model in it as a dict, and every other
    collection as a list. Anything else stays what it is."""
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, BaseMessage):
        return plain_message(value)
    if isinstance(value, Document):
        return {"page_content": value.page_content, "metadata": plain(value.metadata)}
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return value.value if isinstance(value, Enum) else value


def plain_message(message: BaseMessage) -> dict[str, Any]:
    """A message as the OpenAI chat API writes it: role, content, tool_calls, tool_call_id, name."""
    try:
        return convert_to_openai_messages(message)
    except (ValueError, NotImplementedError):
        return {"role": message.type, "content": message.content}


def plain_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """`plain_message` of each."""
    return [plain_message(message) for message in messages]
