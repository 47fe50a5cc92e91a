"""Calls of models and of tools, from CrewAI's events.

The model layer records the model calls that it sees; those that it does not (another provider's client, a local model)
are recorded as text, with what CrewAI's events hold.
"""

from __future__ import annotations

import sys
from typing import Any

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments, tool_attributes, without_none
from agentlightning.adapterkit.failures import failure_of_call
from agentlightning.recording import Recorder, failure_of
from agentlightning.records import Failure, Generation, Usage
from agentlightning_crewai.adapter import to_plain
from agentlightning_crewai.span_stack import EventFrame, base_of, begin, stack, take_last_ended

DELEGATING = ("delegate_work_to_coworker", "ask_question_to_coworker")


def failure_of_event(event: Any, type: str) -> Failure:
    """The failure of the exception that the event holds, or that is being handled where it is emitted; without one, of
    the event's text."""
    reason = event.failure.message if hasattr(event, "failure") else event.error
    error = reason if isinstance(reason, BaseException) else sys.exception()
    return failure_of(error, type) if error is not None else Failure(type=type, message=str(reason))


def expect_call(recorder: Recorder, source: Any, event: Any) -> None:
    """Starts the span of a model call, for the model layer to take when it sees the call."""
    request, attributes = _request(event)
    name = f"chat {request.model or ''}".rstrip()
    recorder.expect_call(begin(recorder, event.type, source, "llm", name, attributes, request=event))


def call_completed(frame: EventFrame, event: Any) -> None:
    """Keeps the answer for the tools that it calls; writes the call where nobody has taken it."""
    if frame.parent is not None:
        frame.parent.set_answer(event.response)
    if frame.span is None or not frame.is_expected_call:
        return
    generation, _ = _request(frame.request)
    answer = to_plain(event.response)
    if isinstance(answer, list):
        generation.response = {"role": "assistant", "content": None, "tool_calls": answer}
    else:
        generation.response = {"role": "assistant", "content": str(answer)}
    generation.finish_reason = getattr(event, "finish_reason", None)
    usage = getattr(event, "usage", None) or {}
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(read, int) and isinstance(written, int):
        generation.usage = Usage(input_tokens=read, output_tokens=written)
        frame.span.attributes.update({semconv.USAGE_INPUT_TOKENS: read, semconv.USAGE_OUTPUT_TOKENS: written})
    frame.span.generation = generation


def call_failed(frame: EventFrame, event: Any) -> Failure | None:
    """The failure of a call that nobody has taken."""
    if frame.span is None or not frame.is_expected_call:
        return None
    frame.span.generation, _ = _request(frame.request)
    error = sys.exception()
    return failure_of_call(error) if error is not None else failure_of_event(event, "agent_error")


def _request(event: Any) -> tuple[Generation, dict[str, Any]]:
    """What the model is asked, and the span's attributes, as far as they are known before the answer."""
    temperature = getattr(event, "temperature", None)
    attributes = without_none(
        {
            semconv.OPERATION_NAME: "chat",
            semconv.REQUEST_MODEL: event.model,
            semconv.REQUEST_TEMPERATURE: temperature,
            semconv.REQUEST_MAX_TOKENS: getattr(event, "max_tokens", None),
        }
    )
    messages = event.messages
    generation = Generation(
        messages=[{"role": "user", "content": messages}] if isinstance(messages, str) else to_plain(messages or []),
        tools=[tool for tool in to_plain(event.tools or []) if isinstance(tool, dict)],
        model=event.model,
        temperature=temperature if temperature is not None else 1.0,
    )
    return generation, attributes


def begin_tool(recorder: Recorder, source: Any, event: Any) -> None:
    """A tool, or a hand-over where the tool delegates to a coworker."""
    attributes = _attributes(event, stack.innermost(recorder))
    if _sanitized(event.tool_name) in DELEGATING:
        arguments = parse_arguments(event.tool_args)
        known = arguments if isinstance(arguments, dict) else {}
        coworker = str(known.get("coworker") or known.get("co_worker") or "coworker").strip()
        begin(recorder, event.type, source, "handoff", coworker, {**attributes, semconv.AGENT_NAME: coworker})
    else:
        begin(recorder, event.type, source, "tool", event.tool_name, attributes)


def tool_finished(frame: EventFrame, event: Any) -> Failure | None:
    """Keeps a tool's result; a tool that returned, but says that it failed, has failed."""
    if frame.span is not None:
        frame.span.attributes[semconv.TOOL_CALL_RESULT] = to_plain(event.output)
    failure = getattr(event, "failure", None)
    return Failure(type="tool_error", message=str(failure.message)) if failure is not None else None


def tool_not_started(recorder: Recorder, source: Any, event: Any) -> None:
    """A tool that could not be started is a failed span all the same: an unknown name, arguments that are no JSON.
    CrewAI tries several times to make sense of one answer of the model; that is one span."""
    around = stack.innermost(recorder)
    attributes = _attributes(event, around)
    if event.type == "tool_selection_error":
        attributes.pop(semconv.TOOL_CALL_ARGUMENTS, None)  # the event has them empty, whatever they are
    if around is not None:
        call = attributes.get(semconv.TOOL_CALL_ID) or f"{_sanitized(event.tool_name)} without an id"
        if call in around.refused:
            return
        around.refused.add(call)
    span = recorder.start("tool", event.tool_name, parent=base_of(recorder, around), attributes=attributes)
    recorder.end(span, failure_of_event(event, "tool_error"))


def tool_failure_detected(recorder: Recorder, source: Any, event: Any) -> None:
    """CrewAI emits this for every failed tool, right after its end, and for one that it could not start."""
    ended = take_last_ended()
    span = ended.span if ended is not None and ended.event == "tool_usage_started" else None
    known = span is not None and span.failure is not None and span.attributes[semconv.TOOL_NAME]
    if not known or _sanitized(known) != _sanitized(event.tool_name):
        tool_not_started(recorder, source, event)


def _attributes(event: Any, around: EventFrame | None) -> dict[str, Any]:
    """A tool's attributes before it runs, with the id of the model's call that is carried out: CrewAI's events do not
    hold it, the last answer that a model gave in the same frame does. Of calls that are equal each is taken once."""
    arguments = parse_arguments(event.tool_args)
    attributes = tool_attributes(event.tool_name, None, to_plain(arguments))
    for call in around.answer if around is not None and isinstance(around.answer, list) else ():
        id, name, text = _read_call(call)
        if not isinstance(id, str) or name != event.tool_name or parse_arguments(text) != to_plain(arguments):
            continue
        # Tools that run at once ask here at once: `setdefault` gives an id to one of them only.
        if around is not None and around.claimed.setdefault(id, attributes) is attributes:
            attributes[semconv.TOOL_CALL_ID] = id
            break
    return attributes


def _read_call(call: Any) -> tuple[Any, Any, Any]:
    """Id, name and arguments of a tool call, which is an object of the client's or a mapping of CrewAI's."""
    function = _read(call, "function") or call
    return _read(call, "id"), _read(function, "name"), _read(function, "arguments")


def _read(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _sanitized(name: str) -> str:
    return name.lower().replace(" ", "_")
