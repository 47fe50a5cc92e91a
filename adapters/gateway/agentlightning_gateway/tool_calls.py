"""Text → message: tool calls are read out of what the model wrote; what it thought stays as it is.

However odd the text, it becomes a valid message. What is no well-formed call (no JSON object, a number that no double
holds, no name, arguments that are no object) stays text; half a surrogate pair becomes U+FFFD, as bytes do that are no
UTF-8.
"""

from __future__ import annotations

import json
import re
from typing import Any

from agentlightning_gateway.protocol import Function, Message, ToolCall, too_deep
from agentlightning_gateway.tool_formats import FORMATS, Call, Schemas, ToolFormat, json_calls, python_calls

THOUGHTS = {
    "<think>": "</think>",  # DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM-4.5, Hermes 4, Phi-4-reasoning
    "[THINK]": "[/THINK]",  # Magistral
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<thought>": "</thought>",  # EXAONE Deep
}
"""How model families begin and end a thought."""
HERMES = FORMATS["hermes"]


def assemble(
    text: str,
    tools: list[dict[str, Any]] | None,
    *,
    format: ToolFormat = HERMES,
    thought: str | None = None,
    parallel: bool = True,
) -> Message:
    """The assistant's message that a text stands for: with tools on offer, calls outside of thoughts are read out of
    it, in the model's ``format``; and, where there are none, an answer that is nothing but calls of those tools.

    ``thought`` is the mark of a thought that the prompt began already. Without ``parallel`` only the first call counts.
    """
    if not tools:
        return Message(role="assistant", content=text)
    schemas = {tool["function"]["name"]: tool["function"].get("parameters") for tool in tools}
    calls, rest = _marked_calls(text, thought, format, schemas)
    if not calls:
        calls, rest = _bare_calls(text, thought, format, schemas)
    if not calls:
        return Message(role="assistant", content=text)
    return Message(role="assistant", content=rest.rstrip() or None, tool_calls=calls if parallel else calls[:1])


def may_become_call(text: str, thought: str | None = None, format: ToolFormat = HERMES) -> int:
    """How many characters at the start of ``text`` can be no part of a tool call, whatever comes after."""
    at = _thought_end(text, thought)
    if at == len(text) or text[at:].lstrip()[:1] in ("", "{", "[", "`"):
        return at
    while mark := _next_mark(text, at, format):
        if mark[0] not in THOUGHTS:
            return len(text[: mark.start()].rstrip())
        at = _closed(text, mark.end(), mark[0])
        if at == len(text):
            return at
    longest = max(map(len, format.opening))
    for size in range(min(longest - 1, len(text)), 0, -1):
        if any(opening.startswith(text[-size:]) for opening in format.opening):
            return len(text[:-size].rstrip())
    return len(text.rstrip())


def _next_mark(text: str, at: int, format: ToolFormat) -> re.Match[str] | None:
    """The next mark that begins a call or a thought."""
    return re.compile("|".join(map(re.escape, (*format.opening, *THOUGHTS)))).search(text, at)


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


def _marked_calls(text: str, thought: str | None, format: ToolFormat, schemas: Schemas) -> tuple[list[ToolCall], str]:
    calls: list[ToolCall] = []
    kept = at = 0
    rest = ""
    if thought is not None:
        at = _closed(text, 0, thought)
    while mark := _next_mark(text, at, format):
        if mark[0] in THOUGHTS:
            at = _closed(text, mark.end(), mark[0])
            continue
        written, end = format.read(text, mark.start(), schemas) or ([], mark.end())
        found = [call for call in (_tool_call(each, format) for each in written) if call is not None]
        if not found or len(found) != len(written):
            at = mark.end()
            continue
        calls += found
        rest += text[kept : mark.start()]
        kept = at = end
    return calls, rest + text[kept:]


def _bare_calls(text: str, thought: str | None, format: ToolFormat, schemas: Schemas) -> tuple[list[ToolCall], str]:
    """The calls of an answer that is nothing else, after its thought: as JSON whatever the format, which models fall
    back to; only tools on offer are called so."""
    start = _thought_end(text, thought)
    body = text[start:].strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not body.startswith(("{", "[")):
        return [], text
    written, end = json_calls(body, 0)
    if body[end:].strip():
        written = python_calls(body) if format.name == "pythonic" else []
    calls = [_tool_call(each, format) for each in written]
    known = [call for call in calls if call is not None and call.function.name in schemas]
    return (known, text[:start]) if known and len(known) == len(written) else ([], text)


def _tool_call(call: Call, format: ToolFormat) -> ToolCall | None:
    """A call as the API shows it; None where it is not well-formed."""
    if not isinstance(call.name, str) or not call.name:
        return None
    if not isinstance(call.arguments, dict) or too_deep(call.arguments):
        return None
    text = json.dumps(call.arguments, ensure_ascii=False, separators=(",", ":"))
    id = call.id if call.id is not None and len(call.id) == format.id_size else format.new_id()
    return ToolCall(id=_whole(id), function=Function(_whole(call.name), _whole(text)))


def _whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
