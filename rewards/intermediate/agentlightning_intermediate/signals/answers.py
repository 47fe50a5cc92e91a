"""Answers that were cut off, that are not in the format asked for, or after which the context is full."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from agentlightning import semconv
from agentlightning.diagnostics import CUT_OFF
from agentlightning.records import Span
from agentlightning_intermediate.content import shown
from agentlightning_intermediate.signals.signal import Occurrence, SignalOptions, named
from agentlightning_intermediate.trace import Trace, answer_text, ended_at, raw_calls

CODE_BLOCK = re.compile(r"\A```[\w+-]*\n(.*)\n?```\Z", re.DOTALL)


def answer_cut_off(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """An answer was not at its end: it reached the longest that it may be."""
    for answer in trace.answers:
        if answer.generation is not None and answer.generation.finish_reason in CUT_OFF:
            yield Occurrence(answer, ended_at(answer), "the answer was cut off at the longest that it may be")


def answer_not_json(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """An answer that calls no tool, and came to its end, should be JSON and is none; a code block around it is no
    matter."""
    for answer in trace.answers:
        should_be = answer.attributes.get(semconv.OUTPUT_TYPE) == "json" or named(answer.agent, options.json_agents)
        if not should_be or answer.generation is None or answer.generation.finish_reason in CUT_OFF:
            continue
        text = answer_text(answer.generation)
        if not raw_calls(answer.generation) and not _is_json(text):
            yield Occurrence(answer, ended_at(answer), f"an answer that is no JSON: {shown(text)}")


def context_overflow(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """The prompt of a call was too long for the model. It was the agent's last answer before that filled it; a first
    prompt is nobody's doing."""
    for call in trace.of_kind("llm"):
        if call.failure is None or call.failure.type != "context_too_long":
            continue
        answer = _last_answer_before(trace, call)
        if answer is not None:
            yield Occurrence(answer, ended_at(call), f"the next prompt was too long: {shown(call.failure.message)}")


def unfenced(text: str) -> str:
    """A text without the code block around it."""
    found = CODE_BLOCK.match(text.strip())
    return found[1] if found else text


def _is_json(text: str) -> bool:
    try:
        json.loads(unfenced(text))
    except (ValueError, RecursionError):
        return False
    return True


def _last_answer_before(trace: Trace, call: Span) -> Span | None:
    before = [answer for answer in trace.answers if answer.index < call.index and answer.agent == call.agent]
    return before[-1] if before else None
