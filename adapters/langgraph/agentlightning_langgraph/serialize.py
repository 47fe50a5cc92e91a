"""LangChain's values as plain data: messages in the OpenAI shape, documents and models as dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, convert_to_openai_messages

from agentlightning.adapterkit import serialize


def plain(value: Any) -> Any:
    """See `agentlightning.adapterkit.serialize.plain`; messages are as the OpenAI chat API writes them."""
    return serialize.plain(value, _convert)


def _convert(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return plain_message(value)
    if isinstance(value, Document):
        return {"page_content": value.page_content, "metadata": plain(value.metadata)}
    return value


def plain_message(message: BaseMessage) -> dict[str, Any]:
    """A message as the OpenAI chat API writes it: role, content, tool_calls, tool_call_id, name."""
    try:
        return convert_to_openai_messages(message)
    except (ValueError, NotImplementedError):
        return {"role": message.type, "content": message.content}


def plain_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """`plain_message` of each."""
    return [plain_message(message) for message in messages]
