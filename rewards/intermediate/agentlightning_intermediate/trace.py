"""What happened in one rollout, as the signals look at it: which answer made which tool call, and caused what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments
from agentlightning.diagnostics import THOUGHT
from agentlightning.records import Generation, Rollout, Span
from agentlightning_intermediate.content import as_json, message_text


class ToolCall(NamedTuple):
    """A tool call that an answer made. ``arguments`` are those of the call, parsed where they are JSON; ``key`` is the
    same text for the same arguments, whatever the order of their names."""

    id: str | None
    name: str
    arguments: Any
    key: str


class Trace:
    """The spans of one rollout by index, and the ``answers`` among them: the ``llm`` spans that were answered."""

    def __init__(self, rollout: Rollout, spans: Sequence[Span]) -> None:
        self.rollout = rollout
        self.spans = sorted(spans, key=lambda span: (span.index, span.id))
        self.answers = [span for span in self.spans if span.kind == "llm" and is_answered(span)]
        self._by_id = {span.id: span for span in self.spans}
        self._calls = {span.id: list(_calls_in(span.generation)) for span in self.answers}
        self._run = self._calls_of_tools_that_ran()

    def of_kind(self, *kinds: str) -> list[Span]:
        """The spans of these kinds."""
        return [span for span in self.spans if span.kind in kinds]

    def calls_of(self, answer: Span) -> list[ToolCall]:
        """The tool calls of an answer: those in its response; where it has none, those of the tools that ran because of
        it (agents that write their calls as text)."""
        return self._calls.get(answer.id) or self._run.get(answer.id, [])

    def cause(self, span: Span) -> Span | None:
        """The answer that caused what a span is: the one that made its call, by the id of the call. Without an id it is
        the last one before the span; rather one that called a tool of that name, then rather one of the same agent.
        What a tool does of itself was caused by whoever called the tool. None before the first answer."""
        tool = self._tool_around(span)
        if tool is not None and not any(self._is_between(answer, tool, span) for answer in self.answers):
            span = tool
        before = [answer for answer in self.answers if answer.index < span.index]
        id = span.attributes.get(semconv.TOOL_CALL_ID)
        makers = [answer for answer in before if isinstance(id, str) and self._made(answer, id)]
        name = tool_name(span)

        def likelihood(answer: Span) -> tuple[bool, bool, bool, int]:
            named = any(call.name == name for call in self._calls[answer.id])
            return named, answer.agent == span.agent, ended_at(answer) <= span.started_at, answer.index

        return max(makers or before, key=likelihood, default=None)

    def is_within(self, span: Span, outer: Span) -> bool:
        """Whether a span is somewhere inside of another."""
        return any(above is outer for above in self._above(span))

    def _made(self, answer: Span, id: str) -> bool:
        return any(call.id == id for call in self._calls[answer.id])

    def _tool_around(self, span: Span) -> Span | None:
        if span.kind in ("tool", "handoff"):
            return None
        return next((above for above in self._above(span) if above.kind == "tool"), None)

    def _is_between(self, answer: Span, tool: Span, span: Span) -> bool:
        """Whether an answer was given in a tool, before something else happened in it."""
        return answer.index < span.index and self.is_within(answer, tool)

    def _above(self, span: Span) -> Iterator[Span]:
        """What a span is in, the nearest first."""
        seen = {span.id}
        above = self._by_id.get(span.parent_id or "")
        while above is not None and above.id not in seen:
            yield above
            seen.add(above.id)
            above = self._by_id.get(above.parent_id or "")

    def _calls_of_tools_that_ran(self) -> dict[str, list[ToolCall]]:
        """The calls that tools and hand-offs are the runs of, by the id of the answer that caused them."""
        found: dict[str, list[ToolCall]] = {}
        for span in self.of_kind("tool", "handoff"):
            answer = self.cause(span)
            if answer is not None:
                found.setdefault(answer.id, []).append(_call_of_span(span))
        return found


def is_answered(span: Span) -> bool:
    """Whether it is a call of a model that has an answer."""
    return span.generation is not None and span.generation.response is not None


def ended_at(span: Span) -> float:
    """When a span ended; when it began, where nobody wrote that down."""
    return span.ended_at if span.ended_at is not None else span.started_at


def tool_name(span: Span) -> str:
    """The name of the tool that a span is the run of."""
    name = span.attributes.get(semconv.TOOL_NAME)
    return name if isinstance(name, str) else span.name


def raw_calls(generation: Generation | None) -> list[Any]:
    """What stands in the place of tool calls in an answer, whatever that is."""
    calls = (generation.response or {}).get("tool_calls") if generation is not None else None
    return calls if isinstance(calls, list) else []


def answer_text(generation: Generation | None) -> str:
    """The text of an answer, without what it thought."""
    content = (generation.response or {}).get("content") if generation is not None else None
    return THOUGHT.sub("", message_text(content)).strip()


def _calls_in(generation: Generation | None) -> Iterator[ToolCall]:
    for call in raw_calls(generation):
        if not isinstance(call, Mapping):
            continue
        kinds = (call.get(kind) for kind in ("function", "custom"))
        of_kind: Mapping[str, Any] = next((one for one in kinds if isinstance(one, Mapping)), {})
        name = of_kind.get("name")
        arguments = of_kind.get("arguments", of_kind.get("input"))
        yield _tool_call(call.get("id"), name if isinstance(name, str) else "", arguments)


def _call_of_span(span: Span) -> ToolCall:
    id, arguments = (span.attributes.get(name) for name in (semconv.TOOL_CALL_ID, semconv.TOOL_CALL_ARGUMENTS))
    return _tool_call(id, tool_name(span), arguments)


def _tool_call(id: Any, name: str, arguments: Any) -> ToolCall:
    arguments = parse_arguments(arguments)
    key = arguments if isinstance(arguments, str) else as_json(arguments)
    return ToolCall(id if isinstance(id, str) else None, name, arguments, key)
