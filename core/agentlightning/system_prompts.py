"""Giving a request to the OpenAI API another system prompt, and demonstrations after it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentlightning.records import Prompt

SYSTEM_ROLES = ("system", "developer")


def render(prompt: Prompt) -> str:
    """The template with the value of each known variable; every other brace stays as it is.

    One pass: a value that looks like a field is not filled in again.
    """
    template = prompt.template or ""
    if not prompt.variables:
        return template
    fields = "|".join(re.escape(name) for name in prompt.variables)
    return re.sub(rf"\{{({fields})\}}", lambda field: prompt.variables[field[1]], template)


def swap(body: Mapping[str, Any], operation: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The body with its system prompt replaced and demonstrations put after it; the body given is not changed.

    In a chat the system prompt is the first system (or developer) message; in a responses request the
    ``instructions``, else the first system item of the input. A prompt with ``replaces`` takes the place of that very
    text wherever it stands, and of nothing else. One without takes the first, and is put in front where a request
    has none. A responses request that goes on from an earlier one on its server has had its demonstrations.
    ``operation`` is ``chat`` or ``responses``.
    """
    for prompt in prompts:
        body = _swap_in_chat(body, prompt) if operation == "chat" else _swap_in_responses(body, prompt)
    return dict(body)


def text_of(content: Any) -> str | None:
    """The text of a message's content, whole or in parts; None where it has none."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else None


def _swap_in_chat(body: Mapping[str, Any], prompt: Prompt) -> Mapping[str, Any]:
    messages = list(body.get("messages") or [])
    place = _place_of(messages, prompt.replaces)
    if place is None and prompt.replaces is not None:
        return body
    if prompt.template is not None:
        if place is None:
            messages.insert(0, {"role": "system", "content": render(prompt)})
        else:
            messages[place] = {**messages[place], "content": render(prompt)}
    return {**body, "messages": _demonstrated(messages, [message for one in prompt.demonstrations for message in one])}


def _swap_in_responses(body: Mapping[str, Any], prompt: Prompt) -> Mapping[str, Any]:
    given, items = body.get("instructions"), body.get("input")
    changed = dict(body)
    place = _place_of(items, prompt.replaces) if isinstance(items, list) else None
    if given and prompt.replaces in (None, given):
        changed["instructions"] = given if prompt.template is None else render(prompt)
    elif place is not None and isinstance(items, list):
        if prompt.template is not None:
            changed["input"] = items = list(items)
            items[place] = {**items[place], "content": render(prompt)}
    elif prompt.replaces is not None:
        return body
    elif prompt.template is not None:
        changed["instructions"] = render(prompt)
    if prompt.demonstrations and not body.get("previous_response_id"):
        before = items if isinstance(items, list) else [{"role": "user", "content": items or ""}]
        changed["input"] = _demonstrated(before, [item for one in prompt.demonstrations for item in _items_of(one)])
    return changed


def _demonstrated(messages: Sequence[Any], demonstrations: Sequence[Any]) -> list[Any]:
    """The messages with the demonstrations after those of the system that they begin with."""
    first = next((place for place, it in enumerate(messages) if not _is_system(it)), len(messages))
    return [*messages[:first], *demonstrations, *messages[first:]]


def _items_of(chat: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The messages of a chat as input items of the responses API."""
    for message in chat:
        if message.get("role") == "tool":
            output = text_of(message.get("content")) or ""
            yield {"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}
            continue
        if message.get("content"):
            yield {"role": message.get("role"), "content": text_of(message["content"]) or ""}
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            name, arguments = function.get("name"), function.get("arguments")
            yield {"type": "function_call", "call_id": call.get("id"), "name": name, "arguments": arguments}


def _place_of(messages: Sequence[Any], text: str | None) -> int | None:
    """Where the system message of that text is, or the first one."""
    for place, message in enumerate(messages):
        if _is_system(message) and text in (None, text_of(message.get("content"))):
            return place
    return None


def _is_system(message: Any) -> bool:
    return isinstance(message, Mapping) and message.get("role") in SYSTEM_ROLES
