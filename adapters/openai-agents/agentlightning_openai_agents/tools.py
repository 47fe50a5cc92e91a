"""What is known of a call of a tool: the SDK's span has its name, arguments and result, the model's answer its id.

A tool that has to be approved has a span of the SDK's when the run stops, without a result, and another when the run
goes on: both are one call, and one span.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from agentlightning import semconv
from agentlightning.recording import Recorder
from agentlightning.records import Failure, Span
from agentlightning_openai_agents.places import Place
from agentlightning_openai_agents.plain import plain

MCP_SERVER = "agentlightning.mcp.server"
WAITING = "openai-agents waiting"


def begin_tool(place: Place) -> None:
    """Begins a tool's span, or goes on with that of a tool that waited for an approval."""
    place.begin = functools.partial(_begin, place)
    if not _interrupted(place):
        place.own()


def _begin(place: Place) -> None:
    same = next((other for other in _interrupted(place) if other.data.input == place.data.input), None)
    if same is not None:
        _waiting(place.recorder).remove(same)
        place.span = same.span
        return
    name = place.data.name
    place.start("tool", name, {semconv.OPERATION_NAME: "execute_tool", semconv.TOOL_NAME: name})


def _interrupted(place: Place) -> list[Place]:
    """The tools of the same name whose run stopped before they ran."""
    others = [other for other in _waiting(place.recorder) if other.data.name == place.data.name]
    return [other for other in others if other.span is not None and semconv.INTERRUPTED in other.span.attributes]


def end_tool(place: Place, span: Span, failure: Failure | None) -> None:
    """Ends a tool's span. One without a result may wait for an approval: the next call of the model, or the end of its
    agent before that, will tell."""
    if failure is None and semconv.TOOL_CALL_RESULT not in span.attributes:
        _waiting(place.recorder).append(place)
        place.recorder.on_close(span, lambda _: place.recorder.end(span))
    else:
        place.recorder.end(span, failure)


def end_answered_tools(recorder: Recorder, call: Span) -> None:
    """Ends the tools whose results the model was told in a call. One that was interrupted, and did not go on, was
    rejected: what the model was told is its result."""
    messages = call.generation.messages if call.generation is not None else ()
    told = {message["tool_call_id"]: message for message in messages if message.get("tool_call_id")}
    for place in list(_waiting(recorder)):
        span = place.span
        message = told.get(span.attributes.get(semconv.TOOL_CALL_ID)) if span is not None else None
        if span is not None and message is not None:
            _waiting(recorder).remove(place)
            if semconv.INTERRUPTED in span.attributes:
                span.attributes[semconv.TOOL_CALL_RESULT] = message.get("content")
            recorder.end(span, at=call.started_at)


def mark_interrupted(agent: Place) -> None:
    """An agent ends with tools that wait: for an approval."""
    for place in _waiting(agent.recorder):
        if place.span is not None and place.within(agent):
            place.span.attributes[semconv.INTERRUPTED] = True


def _waiting(recorder: Recorder) -> list[Place]:
    places: list[Place] = recorder.adapter_state.setdefault(WAITING, [])
    return places


def called(span: Any, place: Place) -> dict[str, Any]:
    """The attributes of a tool's span, when it ends."""
    data = span.span_data
    asked = _asked(span, place.above) if place.above is not None else None
    arguments = data.input if data.input is not None else (asked or {}).get("function", {}).get("arguments")
    attributes = {
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: asked.get("id") if asked is not None else None,
        semconv.TOOL_CALL_ARGUMENTS: _parsed(arguments),
        # An approval that is waited for is a result of the SDK's own, with nothing in it, in older versions.
        semconv.TOOL_CALL_RESULT: plain(data.output.output if hasattr(data.output, "run_item") else data.output),
        MCP_SERVER: (data.mcp_data or {}).get("server"),
    }
    return {key: value for key, value in attributes.items() if value is not None}


def handed_over(place: Place) -> dict[str, Any]:
    """The attributes of the call that hands over: the first one of the answer that calls no tool of the agent's."""
    agent = place.above.above if place.above is not None else None
    tools = (agent.data.tools if agent is not None and agent.data is not None else None) or ()
    for call in _calls(place.above):
        function = call.get("function") or {}
        if not any(_fits(function, tool, None) for tool in tools):
            attributes = {
                semconv.TOOL_CALL_ID: call.get("id"),
                semconv.TOOL_CALL_ARGUMENTS: _parsed(function.get("arguments")),
            }
            return {key: value for key, value in attributes.items() if value is not None}
    return {}


def _calls(turn: Place | None) -> list[dict[str, Any]]:
    """The tool calls of the answer that a turn acts on."""
    said = turn.call.generation if turn is not None and turn.call is not None else None
    return (said.response or {}).get("tool_calls") or [] if said is not None else []


def _asked(span: Any, turn: Place) -> dict[str, Any] | None:
    """The call of the model that this run of a tool answers: the n-th of those that look the same."""
    name, input = span.span_data.name, span.span_data.input
    same = [other for other in turn.tools if (other.span_data.name, other.span_data.input) == (name, input)]
    fitting = [call for call in _calls(turn) if _fits(call.get("function") or {}, name, input)]
    place = next((place for place, other in enumerate(same) if other is span), len(fitting))
    return fitting[place] if place < len(fitting) else None


def _fits(function: dict[str, Any], name: str, input: str | None) -> bool:
    # A tool of a namespace goes by namespace.name.
    is_named = name == function.get("name") or name.endswith(f".{function.get('name')}")
    return is_named and (input is None or input == function.get("arguments"))


def _parsed(arguments: Any) -> Any:
    """A call's arguments as a mapping, or the text that they should have been read from."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments) if arguments else {}
    except ValueError:
        return arguments
