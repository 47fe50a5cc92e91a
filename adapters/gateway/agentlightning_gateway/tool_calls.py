"""Text → message: tool calls are read out of what the model wrote; what it thought stays as it is.

However odd the text, it becomes a valid message. What is no well-formed call (no JSON object, a number that no double
holds, no name, arguments that are no object) stays text; half a surrogate pair becomes U+FFFD, as bytes do that are no
UTF-8.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Collection
from typing import Any

from agentlightning_gateway.protocol import Function, Message, ToolCall, too_deep

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THOUGHTS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM-4.5, Hermes 4, Phi-4-reasoning
    "[THINK]": "[/THINK]",  # Magistral
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<thought>": "</thought>",  # EXAONE Deep
}
"""How model families begin and end a thought."""
MARKS = frozenset({OPEN, CLOSE, *THOUGHTS, *THOUGHTS.values()})
"""What must stay in the text for calls and thoughts to be found, special token or not."""

_MARK = re.compile("|".join(map(re.escape, (OPEN, *THOUGHTS))))
_SPACE = re.compile(r"\s*")


def assemble(
    text: str, tools: list[dict[str, Any]] | None, *, thought: str | None = None, parallel: bool = True
) -> Message:
    """The assistant's message that a text stands for: with tools on offer, Hermes ``<tool_call>`` blocks and bare JSON
    calls outside of thoughts are read out of it.

    ``thought`` is the mark of a thought that the prompt began already. Without ``parallel`` only the first call counts.
    """
    if not tools:
        return Message(role="assistant", content=text)
    calls, rest = _hermes_calls(text, thought)
    if not calls:
        calls, rest = _bare_calls(text, thought, {tool["function"]["name"] for tool in tools})
    if not calls:
        return Message(role="assistant", content=text)
    return Message(role="assistant", content=rest.rstrip() or None, tool_calls=calls if parallel else calls[:1])


def may_become_call(text: str, thought: str | None = None) -> int:
    """How many characters at the start of ``text`` can be no part of a tool call, whatever comes after."""
    at = _thought_end(text, thought)
    if at == len(text) or text[at:].lstrip()[:1] in ("", "{", "[", "`"):
        return at
    while mark := _MARK.search(text, at):
        if mark[0] == OPEN:
            return len(text[: mark.start()].rstrip())
        at = _closed(text, mark.end(), mark[0])
        if at == len(text):
            return at
    for size in range(min(len(OPEN) - 1, len(text)), 0, -1):
        if text.endswith(OPEN[:size]):
            return len(text[:-size].rstrip())
    return len(text.rstrip())


def _thought_end(text: str, thought: str | None) -> int:
    """Where the thought with which the text begins ends; 0 where it begins with none."""
    start = 0
    if thought is None:
        start = len(text) - len(text.lstrip())
        thought = next((mark for mark in THOUGHTS if text.startswith(mark, start)), None)
    return 0 if thought is None else _closed(text, start, thought)


def _closed(text: str, at: int, thought: str) -> int:
    """The end of a thought that begins at ``at``: that of the text where it is not closed."""
    end = text.find(THOUGHTS[thought], at)
    return len(text) if end < 0 else end + len(THOUGHTS[thought])


def _hermes_calls(text: str, thought: str | None) -> tuple[list[ToolCall], str]:
    calls: list[ToolCall] = []
    kept = at = 0
    rest = ""
    if thought is not None:
        at = _closed(text, 0, thought)
    while mark := _MARK.search(text, at):
        if mark[0] != OPEN:
            at = _closed(text, mark.end(), mark[0])
            continue
        value, at = _json_at(text, mark.end())
        call = _call(value)
        if call is None:
            at = mark.end()
            continue
        calls.append(call)
        rest += text[kept : mark.start()]
        close = _skip_space(text, at)
        kept = at = close + len(CLOSE) if text.startswith(CLOSE, close) else at
    return calls, rest + text[kept:]


def _bare_calls(text: str, thought: str | None, names: Collection[str]) -> tuple[list[ToolCall], str]:
    start = _thought_end(text, thought)
    body = text[start:].strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not body.startswith(("{", "[")):
        return [], text
    value, end = _json_at(body, 0)
    if body[end:].strip():
        return [], text
    values = value if isinstance(value, list) else [value]
    calls = [_call(each) for each in values]
    known = [call for call in calls if call is not None and call.function.name in names]
    return (known, text[:start]) if known and len(known) == len(values) else ([], text)


def _call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, dict) or too_deep(arguments):
        return None
    text = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return ToolCall(id=f"call_{secrets.token_hex(12)}", function=Function(_whole(value["name"]), _whole(text)))


def _whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json_at(text: str, at: int) -> tuple[Any, int]:
    try:
        return _json.raw_decode(text, _skip_space(text, at))
    except (ValueError, RecursionError):
        return None, at


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON and a double can both hold")
    return number


_json = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)
