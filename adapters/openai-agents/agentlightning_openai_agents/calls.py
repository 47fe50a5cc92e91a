"""Calls of models and of tools, from the SDK's spans.

Model calls that the SDK makes without the ``openai`` client's requests (another provider's client, a web socket) are
generations of provenance ``text``.

Of a call of a tool, the SDK's span has the name, arguments and result, the model's answer the id. A tool that has to be
approved has a span of the SDK's when the run stops, without a result, and another when the run goes on: both are one
call, and one span.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments, tool_attributes, without_none
from agentlightning.recording import Recorder
from agentlightning.records import Failure, Generation, Span, Usage
from agentlightning_openai import responses_api
from agentlightning_openai_agents.adapter import to_plain
from agentlightning_openai_agents.span_stack import TraceFrame

MCP_SERVER = "agentlightning.mcp.server"
WAITING = "openai-agents waiting"


def call_name(data: Any) -> tuple[str, dict[str, Any]]:
    """The span's name and its ``gen_ai.*`` attributes, as far as they are known before the call."""
    model = getattr(data, "model", None)
    attributes = {semconv.OPERATION_NAME: "chat", **({semconv.REQUEST_MODEL: str(model)} if model else {})}
    return f"chat {model}" if model else "chat", attributes


def to_generation(data: Any, attributes: dict[str, Any]) -> Generation:
    """The call's messages and answer; adds the usage to ``attributes``. All of it is missing where the run has
    ``trace_include_sensitive_data=False``."""
    generation = _of_response(data) if data.type == "response" else _of_generation(data)
    usage = data.usage or {}
    if "input_tokens" in usage:
        tokens = Usage(input_tokens=usage["input_tokens"] or 0, output_tokens=usage.get("output_tokens") or 0)
        generation.usage = tokens
        attributes[semconv.USAGE_INPUT_TOKENS] = tokens.input_tokens
        attributes[semconv.USAGE_OUTPUT_TOKENS] = tokens.output_tokens
    return generation


def _of_response(data: Any) -> Generation:
    response = data.response
    input = data.input if isinstance(data.input, str) else list(map(_item, data.input or ()))
    instructions = getattr(response, "instructions", None)
    messages = responses_api.chat_messages(instructions if isinstance(instructions, str) else None, input)
    if response is None:
        return Generation(messages=messages)
    answer = responses_api.assistant_message(map(_item, response.output))
    finish_reason = responses_api.finish_reason(response.status, None, answer)
    return Generation(messages=messages, model=response.model, response=answer, finish_reason=finish_reason)


def _of_generation(data: Any) -> Generation:
    generation = Generation(messages=list(map(_item, data.input or ())), model=str(data.model) if data.model else None)
    answers = list(map(_item, data.output or ()))
    if answers and "output" in answers[0]:  # what was streamed is kept as an answer of the responses API
        output = answers[0]["output"]
        items: Iterable[Any] = output if isinstance(output, list) else ()
        generation.response = responses_api.assistant_message(map(_item, items))
    elif answers:
        generation.response = answers[0]
    return generation


def _item(item: Any) -> dict[str, Any]:
    """An item or message as a mapping of its own."""
    return dict(item) if isinstance(item, Mapping) else item.model_dump(exclude_none=True)


def begin_tool(frame: TraceFrame) -> None:
    """Starts a tool's span, or goes on with that of a tool that waited for an approval."""
    frame.start_later = functools.partial(_start, frame)
    if not _interrupted(frame):
        frame.started()


def _start(frame: TraceFrame) -> None:
    same = next((other for other in _interrupted(frame) if other.data.input == frame.data.input), None)
    if same is not None:
        _waiting(frame.recorder).remove(same)
        frame.span = same.span
    else:
        frame.start("tool", frame.data.name, tool_attributes(frame.data.name))


def _interrupted(frame: TraceFrame) -> list[TraceFrame]:
    """The tools of the same name whose run stopped before they ran."""
    others = [other for other in _waiting(frame.recorder) if other.data.name == frame.data.name]
    return [other for other in others if other.span is not None and semconv.INTERRUPTED in other.span.attributes]


def end_tool(frame: TraceFrame, span: Span, failure: Failure | None) -> None:
    """Ends a tool's span. One without a result may wait for an approval: the next call of the model, or the end of its
    agent before that, will tell."""
    if failure is None and semconv.TOOL_CALL_RESULT not in span.attributes:
        _waiting(frame.recorder).append(frame)
        frame.recorder.on_close(span, lambda _: frame.recorder.end(span))
    else:
        frame.recorder.end(span, failure)


def end_answered_tools(recorder: Recorder, call: Span) -> None:
    """Ends the tools whose results the model was given in a call. One that was interrupted, and did not go on, was
    rejected: what the model was given is its result."""
    messages = call.generation.messages if call.generation is not None else ()
    results = {message["tool_call_id"]: message for message in messages if message.get("tool_call_id")}
    for frame in list(_waiting(recorder)):
        span = frame.span
        message = results.get(span.attributes.get(semconv.TOOL_CALL_ID)) if span is not None else None
        if span is not None and message is not None:
            _waiting(recorder).remove(frame)
            if semconv.INTERRUPTED in span.attributes:
                span.attributes[semconv.TOOL_CALL_RESULT] = message.get("content")
            recorder.end(span, at=call.started_at)


def mark_interrupted(agent: TraceFrame) -> None:
    """An agent ends with tools that wait: for an approval."""
    for frame in _waiting(agent.recorder):
        if frame.span is not None and frame.within(agent):
            frame.span.attributes[semconv.INTERRUPTED] = True


def _waiting(recorder: Recorder) -> list[TraceFrame]:
    frames: list[TraceFrame] = recorder.adapter_state.setdefault(WAITING, [])
    return frames


def ended_attributes(span: Any, frame: TraceFrame) -> dict[str, Any]:
    """The attributes of a tool's span, when it ends."""
    data = span.span_data
    call = _call_of(span, frame.parent) if frame.parent is not None else {}
    arguments = data.input if data.input is not None else call.get("function", {}).get("arguments")
    # An approval that is waited for is a result of the SDK's own, with nothing in it, in older versions.
    result = to_plain(data.output.output if hasattr(data.output, "run_item") else data.output)
    server = (data.mcp_data or {}).get("server")
    return {
        **tool_attributes(data.name, call.get("id"), _parsed(arguments)),
        **without_none({semconv.TOOL_CALL_RESULT: result, MCP_SERVER: server}),
    }


def handoff_attributes(frame: TraceFrame) -> dict[str, Any]:
    """The attributes of the call that hands over: the first one of the answer that calls no tool of the agent's."""
    agent = frame.parent.parent if frame.parent is not None else None
    tools = (agent.data.tools if agent is not None and agent.data is not None else None) or ()
    for call in _calls(frame.parent):
        function = call.get("function") or {}
        if not any(_fits(function, tool, None) for tool in tools):
            arguments = _parsed(function.get("arguments"))
            return without_none({semconv.TOOL_CALL_ID: call.get("id"), semconv.TOOL_CALL_ARGUMENTS: arguments})
    return {}


def _calls(turn: TraceFrame | None) -> list[dict[str, Any]]:
    """The tool calls of the answer that a turn acts on."""
    generation = turn.call.generation if turn is not None and turn.call is not None else None
    return (generation.response or {}).get("tool_calls") or [] if generation is not None else []


def _call_of(span: Any, turn: TraceFrame) -> dict[str, Any]:
    """The call of the model that this run of a tool answers: the n-th of those that look the same; else nothing."""
    name, input = span.span_data.name, span.span_data.input
    same = [other for other in turn.tools if (other.span_data.name, other.span_data.input) == (name, input)]
    calls = [call for call in _calls(turn) if _fits(call.get("function") or {}, name, input)]
    return next((call for other, call in zip(same, calls, strict=False) if other is span), {})


def _fits(function: dict[str, Any], name: str, input: str | None) -> bool:
    # A tool of a namespace goes by namespace.name.
    is_named = name == function.get("name") or name.endswith(f".{function.get('name')}")
    return is_named and (input is None or input == function.get("arguments"))


def _parsed(arguments: Any) -> Any:
    return {} if arguments == "" else parse_arguments(arguments)
