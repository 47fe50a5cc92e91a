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
from agentlightning_otel.conventions import INPUT_VALUE, OUTPUT_VALUE
from agentlightning_otel.messages import as_json, parsed

Attributes = Mapping[str, Any]

_LANGSMITH_KINDS = {"llm": "chat", "tool": "execute_tool", "chain": "invoke_workflow", "retriever": "retrieval"}
_LANGCHAIN_ROLES = {"human": "user", "ai": "assistant"}
_VERCEL_READ = frozenset(
    (
        *("ai.prompt", "ai.prompt.messages", "ai.prompt.tools", "ai.toolCall.args", "ai.toolCall.result"),
        *("ai.response.text", "ai.response.reasoning", "ai.response.toolCalls", "ai.response.object"),
        *("ai.result.text", "ai.result.toolCalls", "ai.result.object"),
    )
)
"""Attributes whose content is read here, as the next two, so that it is not kept twice."""
_PYDANTIC_AI_READ = frozenset(
    ("agent_name", "final_result", "tool_arguments", "tool_response", "events", "all_messages_events")
)
_LANGSMITH_READ = frozenset((semconv.OPERATION_NAME, "gen_ai.prompt", "gen_ai.completion"))


def translated(attributes: Attributes) -> dict[str, Any]:
    """A span's attributes under the names of the GenAI conventions."""
    operation = attributes.get("ai.operationId")
    if isinstance(operation, str):
        translation, read = _vercel(operation, attributes), _VERCEL_READ
    elif isinstance(attributes.get("langsmith.span.kind"), str):
        translation, read = _langsmith(attributes), _LANGSMITH_READ
    else:
        translation, read = _pydantic_ai(attributes), _PYDANTIC_AI_READ
    translation = {name: value for name, value in translation.items() if value not in (None, [], "")}
    kept = {name: value for name, value in attributes.items() if not translation or name not in read}
    return {**translation, **kept}


def _vercel(operation: str, attributes: Attributes) -> dict[str, Any]:
    """``ai.generateText`` is the whole of an agent's run, ``ai.generateText.doGenerate`` one call of a model."""
    get = attributes.get
    if operation == "ai.toolCall":
        return {
            semconv.OPERATION_NAME: "execute_tool",
            semconv.TOOL_NAME: get("ai.toolCall.name"),
            semconv.TOOL_CALL_ID: get("ai.toolCall.id"),
            semconv.TOOL_CALL_ARGUMENTS: get("ai.toolCall.args"),
            semconv.TOOL_CALL_RESULT: get("ai.toolCall.result"),
        }
    reason = _response(attributes, "finishReason") or get("ai.finishReason")
    reason = reason.replace("-", "_") if isinstance(reason, str) else None
    answer = _vercel_answer(attributes, reason)
    common = {semconv.AGENT_NAME: get("ai.telemetry.functionId"), names.OUTPUT_MESSAGES: [answer] if answer else None}
    if operation.endswith((".doGenerate", ".doStream")):
        first = get("ai.response.msToFirstChunk", get("ai.stream.msToFirstChunk"))
        return common | {
            semconv.OPERATION_NAME: "chat",
            semconv.REQUEST_MODEL: get("ai.model.id"),
            semconv.RESPONSE_MODEL: get("ai.response.model"),
            semconv.PROVIDER_NAME: get("ai.model.provider"),
            semconv.REQUEST_STREAM: True if operation.endswith(".doStream") else None,
            semconv.USAGE_INPUT_TOKENS: _first(attributes, "ai.usage.inputTokens", "ai.usage.promptTokens"),
            semconv.USAGE_OUTPUT_TOKENS: _first(attributes, "ai.usage.outputTokens", "ai.usage.completionTokens"),
            semconv.TIME_TO_FIRST_TOKEN: first / 1000 if isinstance(first, int | float) else None,
            semconv.RESPONSE_FINISH_REASONS: [reason] if reason is not None else None,
            names.INPUT_MESSAGES: _vercel_messages(get("ai.prompt.messages")),
            names.TOOL_DEFINITIONS: [_vercel_tool(parsed(tool)) for tool in _list(get("ai.prompt.tools"))],
        }
    if operation.endswith(".doEmbed"):
        return {semconv.OPERATION_NAME: "embeddings", semconv.REQUEST_MODEL: get("ai.model.id")}
    if operation in ("ai.embed", "ai.embedMany", "ai.rerank"):
        return {}
    prompt = parsed(get("ai.prompt"))
    messages = _vercel_prompt(prompt) if isinstance(prompt, dict) else prompt
    return common | {semconv.OPERATION_NAME: "invoke_workflow", names.INPUT_MESSAGES: messages}


def _first(attributes: Attributes, *keys: str) -> Any:
    return next((attributes[key] for key in keys if attributes.get(key) is not None), None)


def _response(attributes: Attributes, name: str) -> Any:
    """What is under ``ai.response.`` since version 4, and was under ``ai.result.`` before."""
    return _first(attributes, f"ai.response.{name}", f"ai.result.{name}")


def _list(value: Any) -> list[Any]:
    value = parsed(value)
    return value if isinstance(value, list) else []


def _maps(value: Any) -> list[dict[str, Any]]:
    """The maps in a list or in its JSON, each of them perhaps as JSON again."""
    return [item for item in map(parsed, _list(value)) if isinstance(item, dict)]


def _vercel_answer(attributes: Attributes, reason: str | None) -> dict[str, Any]:
    reasoning = _response(attributes, "reasoning")
    text = _response(attributes, "text") or _response(attributes, "object")
    parts = [{"type": "reasoning", "content": reasoning}] if isinstance(reasoning, str) and reasoning else []
    parts += [{"type": "text", "content": as_json(text)}] if text else []
    parts += [_vercel_call(call) for call in _maps(_response(attributes, "toolCalls"))]
    if not parts:
        return {}
    return {"role": "assistant", "parts": parts, **({"finish_reason": reason} if reason is not None else {})}


def _vercel_prompt(prompt: dict[str, Any]) -> list[dict[str, Any]]:
    system, content = prompt.get("system") or prompt.get("instructions"), prompt.get("prompt")
    first = [{"role": "system", "content": system}] if isinstance(system, str) else []
    if isinstance(content, str):
        return [*first, {"role": "user", "content": content}]
    return [*first, *_vercel_messages(prompt.get("messages") or content)]


def _vercel_messages(value: Any) -> list[dict[str, Any]]:
    return [
        {"role": str(item.get("role") or "user"), "parts": [_vercel_part(part) for part in item["content"]]}
        if isinstance(item.get("content"), list)
        else item
        for item in _maps(value)
    ]


def _vercel_part(part: Any) -> dict[str, Any] | str:
    if not isinstance(part, dict):
        return as_json(part)
    kind = part.get("type")
    if kind in ("text", "reasoning"):
        return {"type": kind, "content": part.get("text", "")}
    if kind == "tool-call":
        return _vercel_call(part)
    if kind == "tool-result":
        result = part.get("output", part.get("result"))
        if isinstance(result, dict) and "value" in result and "type" in result:
            result = result["value"]
        return {"type": "tool_call_response", "id": part.get("toolCallId"), "response": result}
    return part


def _vercel_call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = parsed(call.get("input", call.get("args")))
    return {"type": "tool_call", "id": call.get("toolCallId"), "name": call.get("toolName"), "arguments": arguments}


def _vercel_tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        return tool
    kept = {name: tool[name] for name in ("name", "description") if name in tool}
    return {"type": "function", **kept, "parameters": tool.get("inputSchema", tool.get("parameters"))}


def _pydantic_ai(attributes: Attributes) -> dict[str, Any]:
    translation: dict[str, Any] = {}
    if "agent_name" in attributes and semconv.REQUEST_MODEL not in attributes:
        translation[semconv.OPERATION_NAME] = "invoke_agent"
        translation[semconv.AGENT_NAME] = attributes["agent_name"]
        translation[OUTPUT_VALUE] = attributes.get("final_result")
    if "tool_arguments" in attributes or "tool_response" in attributes:
        translation[semconv.OPERATION_NAME] = "execute_tool"
        translation[semconv.TOOL_CALL_ARGUMENTS] = attributes.get("tool_arguments")
        translation[semconv.TOOL_CALL_RESULT] = attributes.get("tool_response")
    events = _maps(attributes.get("events", attributes.get("all_messages_events")))
    events = [event for event in events if isinstance(event.get("event.name"), str)]
    if events:
        messages = [event for event in events if event["event.name"] in names.MESSAGE_EVENTS]
        choices = [event.get("message") for event in events if event["event.name"] == names.CHOICE_EVENT]
        translation[names.INPUT_MESSAGES] = [_pydantic_ai_message(event) for event in messages]
        translation[names.OUTPUT_MESSAGES] = [message for message in choices if isinstance(message, dict)]
    return translation


def _pydantic_ai_message(event: dict[str, Any]) -> dict[str, Any]:
    kept = ("role", "content", "tool_calls", "id", "name")
    present = {name: event[name] for name in kept if event.get(name) is not None}
    return {"role": names.MESSAGE_EVENTS[event["event.name"]], **present}


def _langsmith(attributes: Attributes) -> dict[str, Any]:
    prompt, completion = parsed(attributes.get("gen_ai.prompt")), parsed(attributes.get("gen_ai.completion"))
    kind = _LANGSMITH_KINDS.get(attributes["langsmith.span.kind"])
    if kind != "chat":
        return {semconv.OPERATION_NAME: kind, INPUT_VALUE: prompt, OUTPUT_VALUE: completion}
    translation: dict[str, Any] = {semconv.OPERATION_NAME: kind}
    if isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
        translation[names.INPUT_MESSAGES] = _langchain_messages(prompt["messages"])
    if isinstance(completion, dict):
        choices = [choice.get("message") for choice in _maps(completion.get("choices"))]
        batches = [batch for batch in _list(completion.get("generations")) if isinstance(batch, list)]
        generations = [generation.get("message") for batch in batches for generation in _maps(batch)]
        translation[names.OUTPUT_MESSAGES] = _langchain_messages(choices or generations)
    return translation


def _langchain_messages(items: list[Any]) -> list[dict[str, Any]]:
    """Messages of the chat API, or as LangChain serialises them, those in a batch of one as well."""
    if len(items) == 1 and isinstance(items[0], list):
        items = items[0]
    messages = []
    for item in _maps(items):
        fields = item.get("kwargs") if item.get("type") == "constructor" else item
        if isinstance(fields, dict):
            kind = str(fields.get("type") or "")
            role = fields.get("role") or _LANGCHAIN_ROLES.get(kind, kind) or "user"
            kept = ("content", "tool_calls", "tool_call_id", "name")
            messages.append({"role": str(role), **{name: fields[name] for name in kept if fields.get(name)}})
    return messages
