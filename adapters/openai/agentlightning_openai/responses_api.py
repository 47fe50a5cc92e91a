"""The responses API in the shape of the chat API.

A responses call is a list of items; a chat is a list of messages. Text of an item becomes the message's
content, ``function_call`` items become ``tool_calls`` of the assistant's message they stand beside,
``function_call_output`` becomes a ``tool`` message, reasoning becomes ``reasoning_content``. An item of
another type (a web search, a reference) is kept whole under ``items`` of an assistant's message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_TEXT_PARTS = ("input_text", "output_text", "text")


def chat_messages(instructions: str | None, input: str | list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """``instructions`` and ``input`` of a request as messages."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(input, str):
        messages.append({"role": "user", "content": input})
    else:
        _add_items(messages, input or [])
    return messages


def assistant_message(output: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The items of an answer as one assistant's message."""
    messages: list[dict[str, Any]] = [_assistant()]
    _add_items(messages, output)
    joined = messages[0]
    for message in messages[1:]:
        for key, value in message.items():
            if key != "role":
                before = joined.get(key)
                if before and value and type(before) is not type(value):
                    before, value = _parts(before), _parts(value)
                joined[key] = before + value if before and value else before or value
    return joined


def chat_tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Function tools in the shape of the chat API, others as they are."""
    return [_chat_tool(tool) for tool in tools or []]


def finish_reason(status: str | None, reason: str | None, message: Mapping[str, Any]) -> str | None:
    """The chat API's word for how an answer ended; None when it did not."""
    if status == "incomplete":
        return "length" if reason == "max_output_tokens" else reason
    if status != "completed":
        return None
    return "tool_calls" if message.get("tool_calls") else "stop"


def _chat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _assistant() -> dict[str, Any]:
    return {"role": "assistant", "content": None}


def _add_items(messages: list[dict[str, Any]], items: Iterable[dict[str, Any]]) -> None:
    for item in items:
        kind = item.get("type", "message")
        if kind == "message" and item.get("role") != "assistant":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"))})
        elif kind == "message":
            _add_assistant_message(messages, item.get("content"))
        elif kind == "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls = _open_assistant(messages).setdefault("tool_calls", [])
            calls.append({"id": item.get("call_id"), "type": "function", "function": call})
        elif kind == "function_call_output":
            output = _content(item.get("output"))
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "reasoning":
            parts = [*(item.get("summary") or []), *(item.get("content") or [])]
            thought = "".join(part.get("text") or "" for part in parts)
            if thought:
                messages.append({**_assistant(), "reasoning_content": thought})
        else:
            messages.append({**_assistant(), "items": [item]})


def _add_assistant_message(messages: list[dict[str, Any]], content: Any) -> None:
    """An assistant's message, into the open one where that has only thought so far."""
    last = messages[-1] if messages else None
    is_open = last is not None and last["role"] == "assistant" and last["content"] is None and "tool_calls" not in last
    target = last if is_open and last is not None else _assistant()
    if target is not last:
        messages.append(target)
    refusals = [part["refusal"] for part in content or [] if isinstance(part, dict) and part.get("type") == "refusal"]
    if refusals:
        target["refusal"] = "".join(refusals)
        content = [part for part in content if part.get("type") != "refusal"]
    target["content"] = _content(content) or None


def _open_assistant(messages: list[dict[str, Any]]) -> dict[str, Any]:
    if not messages or messages[-1]["role"] != "assistant":
        messages.append(_assistant())
    return messages[-1]


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "output_text", "text": content}]


def _content(content: Any) -> Any:
    """Parts that are all text as one string; other parts as they are."""
    if not isinstance(content, list):
        return content
    if all(isinstance(part, dict) and part.get("type") in _TEXT_PARTS for part in content):
        return "".join(part.get("text") or "" for part in content)
    return content
