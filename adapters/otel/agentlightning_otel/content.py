"""What a model, tool, agent or retriever was asked and answered, in whichever convention the span has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentlightning import semconv
from agentlightning_otel import conventions as names
from agentlightning_otel.conventions import INPUT_VALUE, OUTPUT_VALUE, unflattened
from agentlightning_otel.messages import chat_messages, chat_tools, parsed, system_messages

Attributes = Mapping[str, Any]
Event = tuple[str, Attributes]

_INPUTS, _OUTPUTS = (INPUT_VALUE, "traceloop.entity.input"), (OUTPUT_VALUE, "traceloop.entity.output")
_FIRST_OF: dict[str, dict[str, tuple[str, ...]]] = {
    "tool": {
        semconv.TOOL_CALL_ARGUMENTS: (semconv.TOOL_CALL_ARGUMENTS, *_INPUTS),
        semconv.TOOL_CALL_RESULT: (semconv.TOOL_CALL_RESULT, *_OUTPUTS),
    },
    "retrieval": {
        semconv.RETRIEVAL_QUERY: (names.RETRIEVAL_QUERY, "gen_ai.memory.query.text", *_INPUTS),
        semconv.RETRIEVAL_DOCUMENTS: (names.RETRIEVAL_DOCUMENTS, "gen_ai.memory.records"),
    },
}
"""Kind of span → our attribute → the names it may have, the first that is there counts."""
_OTHERS = {INPUT_VALUE: _INPUTS, OUTPUT_VALUE: _OUTPUTS}


@dataclass(slots=True)
class Content:
    """Messages in the shape of the chat API; ``attributes`` are further ones under our names."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    """By the index of the answer."""
    attributes: dict[str, Any] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    """Attributes, and flattened families of attributes, whose content is here."""

    def has_read(self, name: str) -> bool:
        """Whether the content of an attribute is here, so that nothing is kept twice."""
        return name in self.read or any(name.startswith(f"{family}.") for family in self.read)


def content_of(attributes: Attributes, events: Sequence[Event]) -> Content:
    """The content of a span's attributes and events."""
    details = [event for name, event in events if name == names.DETAILS_EVENT]
    values = {**attributes, **details[-1]} if details else attributes
    kind, _ = names.meaning(attributes)
    content = Content()
    if kind == "llm":
        _read_request(values, events, content)
        _read_answers(values, events, content)
        _read_parameters(values, content)
        if content.messages or content.answers:
            content.read |= {INPUT_VALUE, OUTPUT_VALUE, "input.mime_type", "output.mime_type"}
        return content
    if kind not in _FIRST_OF:
        for name in (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES):
            if values.get(name):
                content.attributes[name] = chat_messages(values[name])
    for ours, others in _FIRST_OF.get(kind, _OTHERS).items():
        found = next((name for name in others if values.get(name) is not None), None)
        if found is not None:
            content.attributes[ours] = parsed(values[found])
            content.read.add(found)
    if kind == "retrieval":
        items = unflattened(values, "retrieval.documents")
        documents = [item["document"] for item in items if isinstance(item, dict) and "document" in item]
        if documents:
            content.attributes[semconv.RETRIEVAL_DOCUMENTS] = documents
            content.read.add("retrieval.documents")
    return content


def _read_request(values: Attributes, events: Sequence[Event], content: Content) -> None:
    of_events = [
        {"role": names.MESSAGE_EVENTS[name], **event} for name, event in events if name in names.MESSAGE_EVENTS
    ]
    prompts = [event["gen_ai.prompt"] for _, event in events if "gen_ai.prompt" in event]
    content.messages = system_messages(values.get(names.SYSTEM_INSTRUCTIONS)) + (
        chat_messages(values.get(names.INPUT_MESSAGES))
        or chat_messages([_openinference(item) for item in unflattened(values, "llm.input_messages")])
        or chat_messages([_openllmetry(item) for item in unflattened(values, "gen_ai.prompt")])
        or chat_messages(of_events)
        or chat_messages(prompts[-1] if prompts else values.get("gen_ai.prompt"))
    )
    schemas = [_inner(item, "tool").get("json_schema") for item in unflattened(values, "llm.tools")]
    content.tools = (
        chat_tools(values.get(names.TOOL_DEFINITIONS))
        or chat_tools([schema for schema in schemas if schema])
        or chat_tools([_function(item) for item in unflattened(values, "llm.request.functions")])
    )
    content.read |= {names.SYSTEM_INSTRUCTIONS, names.INPUT_MESSAGES, "llm.input_messages", "gen_ai.prompt"}
    content.read |= {names.TOOL_DEFINITIONS, "llm.tools", "llm.request.functions"}


def _read_answers(values: Attributes, events: Sequence[Event], content: Content) -> None:
    completion = next((event["gen_ai.completion"] for _, event in events if "gen_ai.completion" in event), None)
    items = (
        _several(values.get(names.OUTPUT_MESSAGES))
        or [_openinference(item) for item in unflattened(values, "llm.output_messages")]
        or [_openllmetry(item) for item in unflattened(values, "gen_ai.completion")]
        or [_choice(event) for name, event in events if name == names.CHOICE_EVENT]
        or _several(completion or values.get("gen_ai.completion"))
    )
    for item in items:
        answer = chat_messages([{"role": "assistant", "content": item}] if isinstance(item, str) else [item])
        if not answer:
            continue
        if isinstance(item, Mapping) and item.get("finish_reason"):
            content.finish_reasons[len(content.answers)] = str(item["finish_reason"])
        content.answers.append({**answer[0], "role": "assistant"})
    content.read |= {names.OUTPUT_MESSAGES, "llm.output_messages", "gen_ai.completion"}


def _read_parameters(values: Attributes, content: Content) -> None:
    parameters = parsed(values.get(names.INVOCATION_PARAMETERS))
    if values.get("llm.finish_reason"):
        content.finish_reasons.setdefault(0, str(values["llm.finish_reason"]))
        content.read.add("llm.finish_reason")
    if isinstance(parameters, dict):
        read = {ours: parameters[name] for name, ours in names.PARAMETERS.items() if parameters.get(name) is not None}
        content.attributes |= read


def _several(value: Any) -> list[Any]:
    """The members of a list, or of its JSON; any other value alone."""
    value = parsed(value)
    return value if isinstance(value, list) else [value] if value else []


def _inner(item: Any, name: str) -> dict[str, Any]:
    """The map under a name of a nested value; empty where there is none."""
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}


def _openinference(item: Any) -> dict[str, Any]:
    message = dict(_inner(item, "message"))
    calls = [_inner(call, "tool_call") for call in names.numbered(message.pop("tool_calls", None))]
    calls = [call for call in calls if call]
    parts = [_inner(part, "message_content") for part in names.numbered(message.pop("contents", None))]
    if parts:
        message["parts"] = [_openinference_part(part) for part in parts if part]
        message["parts"] += [{"type": "tool_call", "id": call.get("id"), **_inner(call, "function")} for call in calls]
    elif calls:
        message["tool_calls"] = calls
    return message


def _openinference_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "image" and "image" in part:
        url = _inner(_inner(part, "image"), "image").get("url")
        return {"type": "uri", "modality": "image", "uri": str(url or "")}
    return {"type": "text", "content": part.get("text", "")} if "text" in part else part


def _openllmetry(item: Any) -> dict[str, Any]:
    message = dict(item) if isinstance(item, dict) else {"content": item}
    calls = names.numbered(message.get("tool_calls"))
    return {**message, "tool_calls": calls} if calls else message


def _function(item: Any) -> dict[str, Any]:
    return {**item, "parameters": parsed(item.get("parameters"))} if isinstance(item, dict) else {}


def _choice(event: Attributes) -> dict[str, Any]:
    message = parsed(event.get("message"))
    if not isinstance(message, dict):
        message = {"content": message if message is not None else event.get("content")}
    return {**{name: value for name, value in event.items() if name != "message"}, "role": "assistant", **message}
