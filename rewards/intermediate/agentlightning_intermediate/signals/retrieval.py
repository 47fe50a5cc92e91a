"""Retrievals that found nothing, or whose findings nobody used."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from agentlightning import semconv
from agentlightning.records import Span
from agentlightning_intermediate.content import is_nothing, shown, texts_in
from agentlightning_intermediate.signals.signal import Occurrence, SignalOptions, named
from agentlightning_intermediate.trace import Trace, answer_text, ended_at, raw_calls, tool_name

WORDS_IN_A_ROW = 5
"""So many consecutive words of a document in the answer are no accident."""
SAY_NOTHING = frozenset({"yes", "no", "true", "false", "none"})
"""Answers of one word that a document may well be the reason for without holding it."""
WORD = re.compile(r"\w+")
LONGEST = 1_000_000
"""Characters of an answer, and of what a retrieval found, that are compared."""


def retrieval_empty(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A retrieval, or a tool that retrieves, succeeded and found nothing."""
    for span, found in _retrievals(trace, options):
        answer = trace.cause(span)
        if answer is not None and is_nothing(found):
            yield Occurrence(answer, ended_at(span), f"{tool_name(span)} found nothing{_for_what(span)}")


def retrieval_unused(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A retrieval found something, and the final answer takes nothing from it: no `WORDS_IN_A_ROW` consecutive words
    of the answer (all of it, where it is shorter) stand so in what was found. Case and punctuation do not matter.

    The final answer is the rollout's output where that is a text, else the last answer that calls no tool. One of a
    word such as *yes* says nothing, and neither does a rollout without an answer.
    """
    words = _words(_final_answer(trace))
    if not words or (len(words) == 1 and words[0] in SAY_NOTHING):
        return
    size = min(WORDS_IN_A_ROW, len(words))
    taken = set(_rows_of_words(words, size))
    for span, found in _retrievals(trace, options):
        answer = trace.cause(span)
        if answer is None or is_nothing(found):
            continue
        if all(taken.isdisjoint(_rows_of_words(_words(text), size)) for text in texts_in(found)):
            yield Occurrence(answer, math.inf, f"the final answer takes nothing from what {tool_name(span)} found")


def _retrievals(trace: Trace, options: SignalOptions) -> Iterator[tuple[Span, Any]]:
    """Every retrieval that succeeded, with what it found: spans of that kind, and tools with none inside."""
    spans = trace.of_kind("retrieval")
    for span in spans:
        if span.failure is None and semconv.RETRIEVAL_DOCUMENTS in span.attributes:
            yield span, span.attributes[semconv.RETRIEVAL_DOCUMENTS]
    for tool in trace.of_kind("tool"):
        known = tool.failure is None and semconv.TOOL_CALL_RESULT in tool.attributes
        if not known or not named(tool_name(tool), options.retrieval_tools):
            continue
        if not any(trace.is_within(span, tool) for span in spans):
            yield tool, tool.attributes[semconv.TOOL_CALL_RESULT]


def _final_answer(trace: Trace) -> str:
    if isinstance(trace.rollout.output, str):
        return trace.rollout.output
    last = next((answer for answer in reversed(trace.answers) if not raw_calls(answer.generation)), None)
    return answer_text(last.generation) if last is not None else ""


def _words(text: str) -> list[str]:
    return WORD.findall(text[:LONGEST].casefold())


def _rows_of_words(words: list[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _for_what(span: Span) -> str:
    query = span.attributes.get(semconv.RETRIEVAL_QUERY, span.attributes.get(semconv.TOOL_CALL_ARGUMENTS))
    return f" for {shown(query)}" if query is not None else ""
