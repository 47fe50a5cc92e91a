"""What the model of the conformance suite's agents says: decided by the request alone, so that any number of rollouts
may ask one server at once, in any order.

A question is ``What is 2 + 3?``, or ``What is 2 + 3 and 4 + 5?`` for two calls of the tool ``add`` at once. An agent
that can hand over does; one that can add does; what is left to do is to answer.
"""

from __future__ import annotations

import json
import re
from typing import Any

from stub_answers import Answer, Call, Choice, Received, text

SUM = re.compile(r"(-?\d+) \+ (-?\d+)")
RESULT_TYPES = ("function_call_output",)


def script(request: Received) -> Answer:
    """The answer to a chat or responses request."""
    body = request.json
    tools = {tool["name"]: tool for tool in (tool.get("function", tool) for tool in body.get("tools") or [])}
    handover = next((name for name in tools if name.startswith(("transfer", "handoff", "delegate"))), None)
    messages = body.get("messages") or body.get("input")
    messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    asked = SUM.findall(question(messages))
    results = [message for message in messages if _is_result(message)]
    if handover is not None and not results:
        taken = (tools[handover].get("parameters") or {}).get("properties") or {}
        given = {"task": question(messages), "context": "", "coworker": "expert"}
        arguments = {name: value for name, value in given.items() if name in taken}
        return Answer([Choice(None, [Call(handover, json.dumps(arguments), "call_over")])])
    if "add" in tools and not any(_says_number(message) for message in results):
        calls = [
            Call("add", json.dumps({"a": int(a), "b": int(b)}), f"call_{place}") for place, (a, b) in enumerate(asked)
        ]
        return Answer([Choice(None, calls)])
    return text(", ".join(str(int(a) + int(b)) for a, b in asked) or "Hello.")


def question(messages: list[dict[str, Any]]) -> str:
    """The last message, or part of one, that asks for a sum."""
    found = [text for message in messages if message.get("role") == "user" for text in _texts(message)]
    return next((text for text in reversed(found) if SUM.search(text)), "")


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    return [content] if isinstance(content, str) else [part.get("text") or "" for part in content or []]


def _is_result(message: dict[str, Any]) -> bool:
    return message.get("role") == "tool" or message.get("type") in RESULT_TYPES


def _says_number(message: dict[str, Any]) -> bool:
    """A result of ``add``, or what became of its exception: anything but the word of a hand-over."""
    return (message.get("tool_call_id") or message.get("call_id")) != "call_over"
