"""What is known of a call of a tool: the SDK's span has its name, arguments and result, the model's answer its id."""

from __future__ import annotations

import json
from typing import Any

from agentlightning import semconv
from agentlightning_openai_agents.places import Place
from agentlightning_openai_agents.plain import plain

MCP_SERVER = "agentlightning.mcp.server"


def called(span: Any, place: Place) -> dict[str, Any]:
    """The attributes of a tool's span, when it ends."""
    data = span.span_data
    asked = _asked(span, place.above) if place.above is not None else None
    arguments = data.input if data.input is not None else (asked or {}).get("function", {}).get("arguments")
    attributes = {
        semconv.TOOL_TYPE: "function",
        semconv.TOOL_CALL_ID: asked.get("id") if asked is not None else None,
        semconv.TOOL_CALL_ARGUMENTS: _parsed(arguments),
        semconv.TOOL_CALL_RESULT: plain(data.output),
        MCP_SERVER: (data.mcp_data or {}).get("server"),
    }
    return {key: value for key, value in attributes.items() if value is not None}


def _asked(span: Any, turn: Place) -> dict[str, Any] | None:
    """The call of the model that this run of a tool answers: the n-th of those that look the same."""
    said = turn.call.generation if turn.call is not None else None
    calls = (said.response or {}).get("tool_calls") or [] if said is not None else []
    name, input = span.span_data.name, span.span_data.input
    same = [other for other in turn.tools if (other.span_data.name, other.span_data.input) == (name, input)]
    fitting = [call for call in calls if _fits(call.get("function") or {}, name, input)]
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
