"""Messages and tools: the GenAI conventions' parts ↔ the shape of the OpenAI chat API.

    {"role": "assistant", "parts": [{"type": "tool_call", "id": "call_1", "name": "add", "arguments": {"a": 1}}]}
    {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", "type": "function", "function": {…}}]}

What is in neither shape is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Message = Mapping[str, Any]

FINISH_REASONS = {"tool_call": "tool_calls", "tool-calls": "tool_calls", "content-filter": "content_filter"}
"""The conventions' word, and the Vercel AI SDK's → the chat API's."""
MAX_DEPTH = 100
"""How far values nest that are read; what nests deeper stays text."""


def parsed(value: Any) -> Any:
    """The JSON object or list that was sent as a string; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return content if _is_shallow(content, MAX_DEPTH) else value


def as_json(value: Any) -> str:
    """A value as text: text as it is, the rest as JSON, or as Python writes it where JSON cannot."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _is_shallow(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in inner if isinstance(item, dict | list))


def as_list(value: Any) -> list[Any]:
    """The list that a value is, or is as JSON; a map alone is a list of one, anything else of none."""
    value = parsed(value)
    return [value] if isinstance(value, Mapping) else list(value) if isinstance(value, list | tuple) else []


def chat_messages(value: Any) -> list[dict[str, Any]]:
    """Messages of an attribute or event, as a list or as its JSON, in the shape of the chat API."""
    value = parsed(value)
    items = [value] if isinstance(value, str) else as_list(value)
    return [message for item in items for message in _chat_message(item)]


def system_messages(value: Any) -> list[dict[str, Any]]:
    """System instructions: a string, a list of parts, or a list of messages."""
    value = parsed(value)
    if isinstance(value, str) and value:
        return [{"role": "system", "content": value}]
    items = as_list(value) if value else []
    if any(isinstance(item, Mapping) and "role" in item for item in items):
        return chat_messages(items)
    return _chat_message({"role": "system", "parts": items}) if items else []


def chat_tools(value: Any) -> list[dict[str, Any]]:
    """Tool definitions in the shape of the chat API."""
    value = parsed(value)
    items = [parsed(item) for item in (value if isinstance(value, list) else [])]
    return [_chat_tool(item) for item in items if isinstance(item, dict)]


def gen_ai_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages of the chat API as the GenAI conventions write them."""
    return [_gen_ai_message(message) for message in messages]


def gen_ai_tools(tools: Iterable[Message]) -> list[dict[str, Any]]:
    """Tools of the chat API as the GenAI conventions write them."""
    return [
        {"type": "function", **tool["function"]} if isinstance(tool.get("function"), Mapping) else dict(tool)
        for tool in tools
    ]


def text_of(message: Message) -> str:
    """The text of a chat message."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping) and "text" in part)
    return content if isinstance(content, str) else ""


def _chat_message(item: Any) -> list[dict[str, Any]]:
    if isinstance(item, str):
        return [{"role": "user", "content": item}]
    if not isinstance(item, Mapping):
        return []
    role = str(item.get("role") or "user")
    if not isinstance(item.get("parts"), list):
        return [_from_content(role, item)]
    parts = [part if isinstance(part, Mapping) else {"type": "text", "content": str(part)} for part in item["parts"]]
    message: dict[str, Any] = {"role": role, "content": _content(parts)}
    if item.get("name"):
        message["name"] = item["name"]
    reasoning = "".join(str(part.get("content", "")) for part in parts if part.get("type") == "reasoning")
    if reasoning:
        message["reasoning_content"] = reasoning
    calls = [_tool_call(part.get("id"), part) for part in parts if part.get("type") == "tool_call"]
    if calls:
        message["tool_calls"] = calls
    results = [_tool_result(part) for part in parts if part.get("type") == "tool_call_response"]
    return [message, *results] if message["content"] or calls or reasoning or not results else results


def _content(parts: list[Message]) -> Any:
    content = [part for part in parts if part.get("type") not in ("reasoning", "tool_call", "tool_call_response")]
    converted = [_content_part(part) for part in content]
    only_text = all(part.get("type") == "text" for part in content)
    return "\n".join(part["text"] for part in converted) if only_text else converted


def _content_part(part: Message) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "text", "text": str(part.get("content", part.get("text", "")))}
    if part.get("modality") == "image" and part.get("type") in ("uri", "blob"):
        uri = part.get("uri") or f"data:{part.get('mime_type') or 'image/png'};base64,{part.get('content', '')}"
        return {"type": "image_url", "image_url": {"url": uri}}
    return dict(part)


def _tool_call(id: Any, call: Message) -> dict[str, Any]:
    arguments = call.get("arguments")
    function = {"name": str(call.get("name", "")), "arguments": "" if arguments is None else as_json(arguments)}
    return {"id": str(id or ""), "type": "function", "function": function}


def _tool_result(part: Message) -> dict[str, Any]:
    result = next((part[name] for name in ("response", "result", "content") if part.get(name) is not None), "")
    return {"role": "tool", "tool_call_id": str(part.get("id") or ""), "content": as_json(result)}


def _from_content(role: str, item: Message) -> dict[str, Any]:
    """A message whose text is under ``content``, as in the chat API itself and in older events."""
    left_out = ("role", "finish_reason", "index", "tool_calls", "gen_ai.system", "content", "parts")
    content = parsed(item.get("content")) or ""
    message = {"role": role, "content": as_json(content) if isinstance(content, dict) else content}
    message |= {name: value for name, value in item.items() if name not in left_out}
    if role == "tool" and "id" in message:
        message.setdefault("tool_call_id", message.pop("id"))
    calls = parsed(item.get("tool_calls"))
    if isinstance(calls, list) and calls:
        message["tool_calls"] = [
            _tool_call(call.get("id"), call["function"] if isinstance(call.get("function"), Mapping) else call)
            for call in calls
            if isinstance(call, Mapping)
        ]
    return message


def _chat_tool(item: dict[str, Any]) -> dict[str, Any]:
    if isinstance(item.get("function"), dict) or item.get("type", "function") != "function":
        return item
    return {"type": "function", "function": {name: value for name, value in item.items() if name != "type"}}


def _gen_ai_message(message: Message) -> dict[str, Any]:
    role = str(message.get("role", "assistant"))
    content, reasoning = message.get("content"), message.get("reasoning_content")
    parts: list[dict[str, Any]] = [{"type": "reasoning", "content": reasoning}] if reasoning else []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
    elif isinstance(content, list):
        parts += [_gen_ai_part(part) for part in content]
    elif content:
        parts.append({"type": "text", "content": as_json(content)})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = parsed(function.get("arguments"))
        parts.append({"type": "tool_call", "id": call.get("id"), "name": function.get("name"), "arguments": arguments})
    named = {"name": message["name"]} if message.get("name") else {}
    return {"role": role, "parts": parts, **named}


def _gen_ai_part(part: Any) -> dict[str, Any]:
    if not isinstance(part, Mapping):
        return {"type": "text", "content": str(part)}
    if part.get("type") in ("text", "input_text", "output_text"):
        return {"type": "text", "content": part.get("text", "")}
    image = part.get("image_url")
    if part.get("type") != "image_url" or not isinstance(image, Mapping):
        return dict(part)
    url = str(image.get("url", ""))
    kind, comma, data = url.partition(";base64,")
    if kind.startswith("data:") and comma:
        return {"type": "blob", "modality": "image", "mime_type": kind.removeprefix("data:"), "content": data}
    return {"type": "uri", "modality": "image", "uri": url}
