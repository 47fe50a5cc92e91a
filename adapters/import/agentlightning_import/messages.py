"""Messages and tools of several tools and providers → the shape of the OpenAI chat API.

{"role": "user", "content": "…"}                                          OpenAI
{"role": "user", "content": [{"type": "tool_result", …}]}                 Anthropic
{"role": "user", "parts": [{"type": "text", "content": "…"}]}             the OpenTelemetry GenAI conventions
{"lc": 1, "type": "constructor", "id": […, "HumanMessage"], "kwargs": {"content": "…"}}   LangChain, serialised
{"type": "human", "content": "…"}, {"type": "human", "data": {…}}, ["human", "…"]         LangChain, as plain data
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlightning_import.values import as_text, first, parsed

Message = dict[str, Any]

_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("ai", "assistant", "model", "aimessagechunk"), "assistant"),
    **dict.fromkeys(("system", "developer", "tool", "function"), None),
}
"""A role, or LangChain's type of a message → the chat API's role; None: the same."""
_KEPT = ("name", "tool_call_id", "refusal", "audio", "function_call", "reasoning_content")
_TEXTS = ("text", "input_text", "output_text")
_THOUGHTS = ("thinking", "reasoning")
_CALLS = ("tool_use", "tool_call", "function_call")
_RESULTS = ("tool_result", "tool_call_response", "function_call_output")


def chat_messages(value: Any) -> list[Message] | None:
    """The messages that a value is, or has under ``messages``. A text is what a user said. None where there are none in
    a shape that is known."""
    value = parsed(value)
    if isinstance(value, str):
        return [{"role": "user", "content": value}] if value else None
    if isinstance(value, Mapping) and first(value, "messages", "prompts") is not None:
        return chat_messages(first(value, "messages", "prompts"))
    if isinstance(value, Mapping):
        arguments = value.get("kwargs") if "lc" not in value else None  # of a function that was traced
        return chat_messages(arguments) if isinstance(arguments, Mapping) and arguments else chat_message(value)
    if not isinstance(value, list) or not value:
        return None
    if len(value) == 1 and isinstance(value[0], list) and not _is_pair(value[0]):
        return chat_messages(value[0])  # LangChain asks in batches
    found: list[Message] = []
    for item in value:
        messages = chat_message(item)
        if messages is None:
            return None
        found += messages
    return found


def chat_message(item: Any) -> list[Message] | None:
    """The message that a value is: several, where results of tools are in it; None where it is none."""
    item = parsed(item)
    if isinstance(item, str):
        return [{"role": "user", "content": item}]
    if _is_pair(item):
        return [{"role": _role(item[0]), "content": item[1]}]
    if not isinstance(item, Mapping):
        return None
    fields, kind = _fields(item)
    role = _role(first(fields, "role") or kind)
    if role is None:
        return None
    blocks = parsed(fields.get("parts")) or parsed(fields.get("content"))
    message: Message = {"role": role, "content": fields.get("content")}
    results: list[Message] = []
    if isinstance(blocks, list):
        results = _read_blocks(message, [block if isinstance(block, Mapping) else _text(block) for block in blocks])
    elif isinstance(blocks, Mapping) and role != "assistant":
        message["content"] = as_text(blocks)
    more = fields.get("additional_kwargs")
    kept = {**(more if isinstance(more, Mapping) else {}), **fields}
    message |= {name: kept[name] for name in _KEPT if kept.get(name) is not None}
    calls = parsed(kept.get("tool_calls"))
    if isinstance(calls, list) and calls:
        message["tool_calls"] = [_tool_call(call) for call in calls if isinstance(call, Mapping)]
    if results and not message["content"] and not message.get("tool_calls"):
        return results
    return [*results, message]


def chat_tools(value: Any) -> list[dict[str, Any]]:
    """Definitions of tools; of a mapping, by their names."""
    value = parsed(value)
    if isinstance(value, Mapping):
        named = ((name, parsed(tool)) for name, tool in value.items())
        value = [{"name": name, **tool} for name, tool in named if isinstance(tool, Mapping)]
    items = [parsed(item) for item in value] if isinstance(value, list) else []
    return [_tool(item) for item in items if isinstance(item, Mapping)]


def is_tool_definition(content: Any) -> bool:
    """Whether the content of a message is the definition of a tool."""
    content = parsed(content)
    if not isinstance(content, Mapping):
        return False
    return isinstance(content.get("function"), Mapping) or ("name" in content and bool(_parameters(content)))


def answer_of(value: Any) -> Message | None:
    """What a model answered: the last of messages; a text, or whatever else it is, is what it wrote."""
    value = parsed(value)
    if not value:
        return None
    found = None if isinstance(value, str) else chat_messages(value)
    if found:
        return {**found[-1], "role": "assistant"}
    text = first(value, "text", "completion", "content", "output") if isinstance(value, Mapping) else None
    return {"role": "assistant", "content": as_text(value if text is None else text)}


def _is_pair(item: Any) -> bool:
    """Whether it is LangChain's ``("human", "text")``."""
    return (
        isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], str)
        and item[0].lower() in _ROLES
    )


def _fields(item: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Where the fields of a message are, and what says whose it is, where no role does."""
    kwargs, identity, data = item.get("kwargs"), item.get("id"), item.get("data")
    if "lc" in item and isinstance(kwargs, Mapping) and isinstance(identity, list) and identity:
        kind = str(identity[-1]).removesuffix("Chunk").removesuffix("Message").lower()
        return kwargs, kind if kind in _ROLES else kwargs.get("type")
    if isinstance(data, Mapping) and item.get("type") in _ROLES:
        return data, item["type"]
    return item, item.get("type")


def _role(name: Any) -> str | None:
    name = str(name or "").lower()
    return (_ROLES[name] or name) if name in _ROLES else None


def _text(value: Any) -> Mapping[str, Any]:
    return {"type": "text", "text": as_text(value)}


def _read_blocks(message: Message, blocks: list[Mapping[str, Any]]) -> list[Message]:
    """Puts blocks of content where the chat API has them; returns the results of tools in them."""
    content: list[dict[str, Any]] = []
    calls, results, thoughts = [], [], []
    for block in blocks:
        kind = block.get("type", "text" if "text" in block else None)
        if kind in _TEXTS:
            content.append({"type": "text", "text": as_text(first(block, "text", "content"))})
        elif kind in _THOUGHTS:
            thoughts.append(as_text(first(block, "thinking", "reasoning", "content", "text")))
        elif kind in _CALLS:
            calls.append(_tool_call(block))
        elif kind in _RESULTS:
            results.append(_tool_result(block))
        else:
            content.append(dict(block))
    texts = [block["text"] for block in content if block.get("type") == "text"]
    joined = len(texts) == len(content) and (message["role"] == "assistant" or len(texts) < 2)
    message["content"] = "".join(texts) if joined else content
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return results


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    inner = function if isinstance(function, Mapping) else call
    arguments = first(inner, "arguments", "args", "input")
    named = {"name": as_text(inner.get("name")), "arguments": "{}" if arguments is None else as_text(arguments)}
    return {"id": as_text(first(call, "id", "call_id")), "type": "function", "function": named}


def _tool_result(block: Mapping[str, Any]) -> Message:
    content = first(block, "content", "response", "result", "output")
    if isinstance(content, list) and all(isinstance(part, Mapping) and "text" in part for part in content):
        content = "".join(as_text(part["text"]) for part in content)
    id = as_text(first(block, "tool_use_id", "id", "call_id"))
    return {"role": "tool", "tool_call_id": id, "content": as_text(content)}


def _tool(item: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(item.get("function"), Mapping) or item.get("type", "function") not in ("function", "custom"):
        return dict(item)
    about = {name: item[name] for name in ("name", "description", "strict") if item.get(name) is not None}
    return {"type": "function", "function": {**about, "parameters": _parameters(item) or {}}}


def _parameters(item: Mapping[str, Any]) -> Any:
    return parsed(first(item, "parameters", "input_schema", "inputSchema", "args_schema"))
