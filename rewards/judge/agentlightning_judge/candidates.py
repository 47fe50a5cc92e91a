"""What a judge is shown of a rollout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from agentlightning import semconv
from agentlightning.answers import output_text
from agentlightning.records import Generation, Rollout, Span
from agentlightning.redaction import redact

NOTHING = "(nothing)"


class Shown(msgspec.Struct, frozen=True):
    """A text, and how many characters of it were left out."""

    text: str
    left_out: int = 0


def show_rollout(
    rollout: Rollout, spans: Sequence[Span], *, what: Literal["output", "transcript"], max_characters: int
) -> Shown:
    """The final answer of a rollout, after a transcript where that is asked for; secrets are blotted out."""
    parts = _transcript(spans) if what == "transcript" else []
    if rollout.failure is not None and rollout.failure.fault == "agent":
        parts.append(f"The run failed: {rollout.failure.type}: {rollout.failure.message}")
    answer = output_text(rollout.output)
    parts.append(f"Final answer:\n{answer or NOTHING}" if parts else answer or NOTHING)
    return cut("\n\n".join(parts), max_characters)


def show_value(value: Any, max_characters: int) -> str:
    """A task's input or expected answer as text."""
    return cut(_text(value) or NOTHING, max_characters).text


def cut(text: str, max_characters: int) -> Shown:
    """A text of that length at most, beside a note that says what is missing: the middle, as a beginning says what is
    done, and an end what came of it."""
    text = redact(text).encode("utf-8", "replace").decode()
    left_out = len(text) - max_characters
    if left_out <= 0:
        return Shown(text)
    head = max_characters // 2
    note = f"\n[… {left_out} characters left out here …]\n"
    return Shown(f"{text[:head]}{note}{text[len(text) - (max_characters - head) :]}", left_out)


def _transcript(spans: Sequence[Span]) -> list[str]:
    ran_tools = any(span.kind == "tool" for span in spans)
    seen: set[str] = set()
    lines: list[str] = []
    for span in sorted(spans, key=lambda span: span.index):
        if span.kind == "llm" and span.generation is not None:
            lines += _of_call(span, span.generation, seen, skip_results=ran_tools)
        elif span.kind in ("tool", "retrieval"):
            lines.append(_of_tool(span))
        elif span.kind == "handoff":
            target = span.attributes.get(semconv.AGENT_NAME, span.name)
            lines.append(f"{span.agent or 'agent'} hands over to {target}")
    return lines


def _of_call(span: Span, call: Generation, seen: set[str], *, skip_results: bool) -> Iterator[str]:
    """The messages that have not been shown yet, and the answer. The system's are the agent's own instructions, no part
    of what it did; results of tools are shown with the tools, where those were recorded."""
    for message in [*call.messages, *([call.response] if call.response is not None else [])]:
        role = message.get("role", "assistant")
        key = _text({"role": role, "content": message.get("content"), "calls": message.get("tool_calls")})
        if role in ("system", "developer") or (role == "tool" and skip_results) or key in seen:
            continue
        seen.add(key)
        said = [output_text(message.get("content")), *_calls(message.get("tool_calls") or ())]
        who = (span.agent or "assistant") if role == "assistant" else role
        yield f"{who}: " + "\n".join(part for part in said if part)
    if span.failure is not None:
        yield f"{span.agent or 'assistant'}: the call failed: {span.failure.type}: {span.failure.message}"


def _calls(calls: Iterable[Any]) -> Iterator[str]:
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield f"calls {function.get('name')}({_text(function.get('arguments'))})"


def _of_tool(span: Span) -> str:
    name = span.attributes.get(semconv.TOOL_NAME, span.name)
    given = span.attributes.get(semconv.TOOL_CALL_ARGUMENTS, span.attributes.get(semconv.RETRIEVAL_QUERY))
    if span.failure is not None:
        return f"{span.kind} {name}({_text(given)}) failed: {span.failure.message}"
    found = span.attributes.get(semconv.TOOL_CALL_RESULT, span.attributes.get(semconv.RETRIEVAL_DOCUMENTS))
    return f"{span.kind} {name}({_text(given)}) gave: {_text(found)}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
