"""Tool calls that came to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentlightning.diagnostics import holds_unread_call, is_well_formed
from agentlightning.records import Failure, Span
from agentlightning_intermediate.content import shown
from agentlightning_intermediate.signals.signal import Occurrence, SignalOptions
from agentlightning_intermediate.trace import Trace, answer_text, ended_at, raw_calls, tool_name


def tool_error(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A tool failed, through no fault of the infrastructure; it was not merely cut off."""
    for tool in trace.of_kind("tool"):
        answer = trace.cause(tool)
        if tool.failure is not None and _is_the_agents(tool.failure) and answer is not None:
            yield Occurrence(answer, ended_at(tool), f"{tool_name(tool)} failed: {shown(tool.failure.message)}")


def tool_malformed(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """The arguments of a call are no JSON object, or the text of an answer holds a call that nobody could read
    (`agentlightning.diagnostics`) and that made no tool run."""
    for answer in trace.answers:
        for call in raw_calls(answer.generation):
            if not isinstance(call, Mapping) or not is_well_formed(call):
                yield Occurrence(answer, ended_at(answer), f"a malformed tool call: {shown(_arguments(call))}")
        if _holds_unread_call(trace, answer):
            text = answer_text(answer.generation)
            yield Occurrence(answer, ended_at(answer), f"a tool call that nobody could read: {shown(text)}")


def tool_repeated(trace: Trace, options: SignalOptions) -> Iterator[Occurrence]:
    """A call with the same tool and the same arguments as an earlier one of the same agent."""
    made: set[tuple[str | None, str, str]] = set()
    for answer in trace.answers:
        for call in trace.calls_of(answer):
            same = (answer.agent, call.name, call.key)
            if same in made:
                yield Occurrence(answer, ended_at(answer), f"{call.name} was called again with {shown(call.key)}")
            made.add(same)


def _is_the_agents(failure: Failure) -> bool:
    return failure.fault == "agent" and failure.type != "cancelled"


def _holds_unread_call(trace: Trace, answer: Span) -> bool:
    was_read = bool(trace.calls_of(answer)) and not raw_calls(answer.generation)
    return answer.generation is not None and not was_read and holds_unread_call(answer.generation)


def _arguments(call: object) -> object:
    function = call.get("function") if isinstance(call, Mapping) else None
    return function.get("arguments") if isinstance(function, Mapping) else type(call).__name__
