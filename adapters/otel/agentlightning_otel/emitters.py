"""What emitters call by names of their own, under the names of the GenAI conventions.

The Vercel AI SDK, versions 3 to 6 (https://ai-sdk.dev/docs/ai-sdk-core/telemetry), Pydantic AI before its version 3 of
the names, and LangSmith's exporter. A span of no emitter known here stays as it is, and what has a name of the
conventions keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlightning import semconv
from agentlightning_otel import conventions as names
from agentlightning_otel.messages import as_json, parsed

Attributes = Mapping[str, Any]

_LANGSMITH = {"llm": "chat", "tool": "execute_tool", "chain": "invoke_workflow", "retriever": "retrieval"}
_VERCEL = frozenset(
    (
        *("ai.prompt", "ai.prompt.messages", "ai.prompt.tools", "ai.toolCall.args", "ai.toolCall.result"),
        *("ai.response.text", "ai.response.reasoning", "ai.response.toolCalls", "ai.response.object"),
        *("ai.result.text", "ai.result.toolCalls", "ai.result.object"),
    )
)
"""What is read here, as the next two, so that it is not kept twice."""
_PYDANTIC_AI = frozenset(
    ("agent_name", "final_result", "tool_arguments", "tool_response", "events", "all_messages_events")
)
_OF_LANGSMITH = frozenset((semconv.OPERATION_NAME, "gen_ai.prompt", "gen_ai.completion"))
_LANGCHAIN_ROLES = {"human": "user", "ai": "assistant"}


def translated(attributes: Attributes) -> dict[str, Any]:
    """A span's attributes under the names of the GenAI conventions."""
    operation = attributes.get("ai.operationId")
    if isinstance(operation, str):
        return _joined(attributes, _vercel(operation, attributes), _VERCEL)
    if isinstance(attributes.get("langsmith.span.kind"), str):
        return _joined(attributes, _langsmith(attributes), _OF_LANGSMITH)
    return _joined(attributes, _pydantic_ai(attributes), _PYDANTIC_AI)


def _joined(attributes: Attributes, translation: dict[str, Any], theirs: frozenset[str]) -> dict[str, Any]:
    """Both, less ``theirs`` where the translation says something, and with the conventions' own names first."""
    told = {name: value for name, value in translation.items() if value not in (None, [], "")}
    return {**told, **{name: value for name, value in attributes.items() if not told or name not in theirs}}


def _vercel(operation: str, given: Attributes) -> dict[str, Any]:
    """``ai.generateText`` is the whole of an agent's run, ``ai.generateText.doGenerate`` one call of a model."""
    if operation == "ai.toolCall":
        return {
            semconv.OPERATION_NAME: "execute_tool",
            semconv.TOOL_NAME: given.get("ai.toolCall.name"),
            semconv.TOOL_CALL_ID: given.get("ai.toolCall.id"),
            semconv.TOOL_CALL_ARGUMENTS: given.get("ai.toolCall.args"),
            semconv.TOOL_CALL_RESULT: given.get("ai.toolCall.result"),
        }
    reason = _response(given, "finishReason") or given.get("ai.finishReason")
    answer = _vercel_answer(given, reason)
    common = {
        semconv.AGENT_NAME: given.get("ai.telemetry.functionId"),
        names.OUTPUT_MESSAGES: [answer] if answer else None,
    }
    if operation.endswith((".doGenerate", ".doStream")):
        tools = given.get("ai.prompt.tools")
        first = given.get("ai.response.msToFirstChunk", given.get("ai.stream.msToFirstChunk"))
        return common | {
            semconv.OPERATION_NAME: "chat",
            semconv.REQUEST_MODEL: given.get("ai.model.id"),
            semconv.RESPONSE_MODEL: given.get("ai.response.model"),
            semconv.PROVIDER_NAME: given.get("ai.model.provider"),
            semconv.REQUEST_STREAM: True if operation.endswith(".doStream") else None,
            semconv.USAGE_INPUT_TOKENS: _first(given, "ai.usage.inputTokens", "ai.usage.promptTokens"),
            semconv.USAGE_OUTPUT_TOKENS: _first(given, "ai.usage.outputTokens", "ai.usage.completionTokens"),
            semconv.TIME_TO_FIRST_TOKEN: first / 1000 if isinstance(first, int | float) else None,
            semconv.RESPONSE_FINISH_REASONS: [_reason(reason)] if isinstance(reason, str) else None,
            names.INPUT_MESSAGES: _vercel_messages(given.get("ai.prompt.messages")),
            names.TOOL_DEFINITIONS: [_vercel_tool(tool) for tool in _list(tools)],
        }
    if operation.endswith(".doEmbed"):
        return {semconv.OPERATION_NAME: "embeddings", semconv.REQUEST_MODEL: given.get("ai.model.id")}
    if operation in ("ai.embed", "ai.embedMany", "ai.rerank"):
        return {}
    prompt = parsed(given.get("ai.prompt"))
    return common | {
        semconv.OPERATION_NAME: "invoke_workflow",
        names.INPUT_MESSAGES: _vercel_prompt(prompt) if isinstance(prompt, dict) else prompt,
    }


def _first(given: Attributes, *keys: str) -> Any:
    return next((given[key] for key in keys if given.get(key) is not None), None)


def _list(value: Any) -> list[Any]:
    value = parsed(value)
    return [parsed(item) for item in value] if isinstance(value, list) else []


def _response(given: Attributes, name: str) -> Any:
    """What is under ``ai.response.`` since version 4, and was under ``ai.result.`` before."""
    return _first(given, f"ai.response.{name}", f"ai.result.{name}")


def _reason(reason: str) -> str:
    return reason.replace("-", "_")


def _vercel_answer(given: Attributes, reason: Any) -> dict[str, Any]:
    thought, text = _response(given, "reasoning"), _response(given, "text") or _response(given, "object")
    parts = [{"type": "reasoning", "content": thought}] if isinstance(thought, str) and thought else []
    if text:
        parts.append({"type": "text", "content": as_json(text)})
    parts += [_tool_call(call) for call in _list(_response(given, "toolCalls")) if isinstance(call, dict)]
    if not parts:
        return {}
    ended = {"finish_reason": _reason(reason)} if isinstance(reason, str) else {}
    return {"role": "assistant", "parts": parts, **ended}


def _vercel_prompt(prompt: dict[str, Any]) -> list[dict[str, Any]]:
    system, asked = prompt.get("system") or prompt.get("instructions"), prompt.get("prompt")
    first = [{"role": "system", "content": system}] if isinstance(system, str) else []
    if isinstance(asked, str):
        return [*first, {"role": "user", "content": asked}]
    return [*first, *_vercel_messages(prompt.get("messages") or asked)]


def _vercel_messages(value: Any) -> list[dict[str, Any]]:
    return [
        {"role": str(item.get("role") or "user"), "parts": [_vercel_part(part) for part in item["content"]]}
        if isinstance(item.get("content"), list)
        else item
        for item in _list(value)
        if isinstance(item, dict)
    ]


def _vercel_part(part: Any) -> dict[str, Any] | str:
    if not isinstance(part, dict):
        return as_json(part)
    kind = part.get("type")
    if kind in ("text", "reasoning"):
        return {"type": kind, "content": part.get("text", "")}
    if kind == "tool-call":
        return _tool_call(part)
    if kind == "tool-result":
        result = part.get("output", part.get("result"))
        typed = isinstance(result, dict) and "value" in result and "type" in result
        return {
            "type": "tool_call_response",
            "id": part.get("toolCallId"),
            "response": result["value"] if typed else result,
        }
    return part


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("input", call.get("args"))
    return {
        "type": "tool_call",
        "id": call.get("toolCallId"),
        "name": call.get("toolName"),
        "arguments": parsed(arguments),
    }


def _vercel_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        return tool
    schema = tool.get("inputSchema", tool.get("parameters"))
    kept = {name: tool[name] for name in ("name", "description") if name in tool}
    return {"type": "function", **kept, "parameters": schema}


def _pydantic_ai(given: Attributes) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if "agent_name" in given and semconv.REQUEST_MODEL not in given:
        told[semconv.OPERATION_NAME] = "invoke_agent"
        told[semconv.AGENT_NAME] = given["agent_name"]
        told["output.value"] = given.get("final_result")
    if "tool_arguments" in given or "tool_response" in given:
        told[semconv.OPERATION_NAME] = "execute_tool"
        told[semconv.TOOL_CALL_ARGUMENTS] = given.get("tool_arguments")
        told[semconv.TOOL_CALL_RESULT] = given.get("tool_response")
    events = [event for event in _list(given.get("events", given.get("all_messages_events"))) if _is_event(event)]
    if events:
        messages = [event for event in events if event["event.name"] in names.MESSAGE_EVENTS]
        choices = [event.get("message") for event in events if event["event.name"] == names.CHOICE_EVENT]
        told[names.INPUT_MESSAGES] = [_of_event(event) for event in messages]
        told[names.OUTPUT_MESSAGES] = [message for message in choices if isinstance(message, dict)]
    return told


def _is_event(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("event.name"), str)


def _of_event(event: dict[str, Any]) -> dict[str, Any]:
    role = names.MESSAGE_EVENTS[event["event.name"]]
    kept = ("role", "content", "tool_calls", "id", "name")
    return {"role": role, **{name: event[name] for name in kept if event.get(name) is not None}}


def _langsmith(given: Attributes) -> dict[str, Any]:
    prompt, completion = parsed(given.get("gen_ai.prompt")), parsed(given.get("gen_ai.completion"))
    kind = _LANGSMITH.get(str(given["langsmith.span.kind"]))
    if kind != "chat":
        return {semconv.OPERATION_NAME: kind, "input.value": prompt, "output.value": completion}
    told: dict[str, Any] = {semconv.OPERATION_NAME: kind}
    if isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
        told[names.INPUT_MESSAGES] = _langchain_messages(prompt["messages"])
    if isinstance(completion, dict):
        told[names.OUTPUT_MESSAGES] = _langchain_messages(
            [choice.get("message") for choice in _dicts(completion.get("choices"))]
            or [it.get("message") for batch in _lists(completion.get("generations")) for it in _dicts(batch)]
        )
    return told


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _lists(value: Any) -> list[list[Any]]:
    return [item for item in value if isinstance(item, list)] if isinstance(value, list) else []


def _langchain_messages(items: list[Any]) -> list[dict[str, Any]]:
    """Messages of the chat API, or as LangChain serialises them, those in a batch of one as well."""
    if len(items) == 1 and isinstance(items[0], list):
        items = items[0]
    found = []
    for item in _dicts(items):
        fields = item.get("kwargs") if item.get("type") == "constructor" else item
        if isinstance(fields, dict):
            kind = str(fields.get("type") or "")
            role = fields.get("role") or _LANGCHAIN_ROLES.get(kind, kind) or "user"
            kept = ("content", "tool_calls", "tool_call_id", "name")
            found.append({"role": str(role), **{name: fields[name] for name in kept if fields.get(name)}})
    return found
