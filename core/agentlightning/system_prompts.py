"""Swapping the system prompt of a request to the OpenAI API. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentlightning.records import Prompt

_SYSTEM_ROLES = ("system", "developer")


def render(prompt: Prompt) -> str:
    """The template with the value of each known variable; every other brace stays as it is.

    One pass: a value that looks like a field is not filled in again.
    """
    if not prompt.variables:
        return prompt.template
    fields = "|".join(re.escape(name) for name in prompt.variables)
    return re.sub(rf"\{{({fields})\}}", lambda field: prompt.variables[field[1]], prompt.template)


def swap(body: Mapping[str, Any], operation: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The body with its system prompt replaced; the body given is not changed.

    In a chat that is the first system (or developer) message; in a responses request the ``instructions``,
    else the first system item of the input. A prompt with ``replaces`` takes the place of that very text
    wherever it stands, and of nothing else. One without takes the first, and is put in front where a request
    has none. ``operation`` is ``chat`` or ``responses``.
    """
    for prompt in prompts:
        body = _swap_in_chat(body, prompt) if operation == "chat" else _swap_in_responses(body, prompt)
    return dict(body)


def _swap_in_chat(body: Mapping[str, Any], prompt: Prompt) -> dict[str, Any]:
    messages = list(body.get("messages") or [])
    if not _replace_first(messages, prompt) and prompt.replaces is None:
        messages.insert(0, {"role": "system", "content": render(prompt)})
    return {**body, "messages": messages}


def _swap_in_responses(body: Mapping[str, Any], prompt: Prompt) -> dict[str, Any]:
    instructions = body.get("instructions")
    if instructions and prompt.replaces in (None, instructions):
        return {**body, "instructions": render(prompt)}
    items = body.get("input")
    if isinstance(items, list):
        items = list(items)
        if _replace_first(items, prompt):
            return {**body, "input": items}
    return {**body, "instructions": render(prompt)} if prompt.replaces is None else dict(body)


def _replace_first(messages: list[Any], prompt: Prompt) -> bool:
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in _SYSTEM_ROLES:
            continue
        if prompt.replaces is None or _text(message.get("content")) == prompt.replaces:
            messages[index] = {**message, "content": render(prompt)}
            return True
    return False


def _text(content: Any) -> str | None:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else None
