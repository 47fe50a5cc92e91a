"""What was said to a model and by it, to a tool, an agent or a retriever, in whichever convention it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentlightning import semconv
from agentlightning_otel import conventions as names
from agentlightning_otel.messages import chat_messages, chat_tools, parsed, system_messages

Attributes = Mapping[str, Any]
Event = tuple[str, Attributes]

_INPUT, _OUTPUT = "input.value", "output.value"
_PARAMETERS = "llm.invocation_parameters"


@dataclass(slots=True)
class Said:
    """Messages in the shape of the chat API; ``attributes`` are further ones under our names."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    finish_reasons: dict[int, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    """Attributes, and the families of attributes, whose content is here."""

    def has_read(self, name: str) -> bool:
        """Whether the content of an attribute is here, so that nothing is kept twice."""
        return name in self.read or any(name.startswith(f"{family}.") for family in self.read)


def said_in(attributes: Attributes, events: Sequence[Event]) -> Said:
    """What a span's attributes and events tell."""
    details = [told for name, told in events if name == names.DETAILS_EVENT]
    given = {**attributes, **details[-1]} if details else attributes
    kind, _ = names.meaning(attributes)
    said = Said()
    if kind == "llm":
        _read_request(given, events, said)
        _read_answers(given, events, said)
        _read_tools(given, said)
        _read_parameters(given, said)
        if said.messages or said.answers:
            said.read |= {_INPUT, _OUTPUT, "input.mime_type", "output.mime_type"}
    elif kind == "tool":
        _keep(said, semconv.TOOL_CALL_ARGUMENTS, given, semconv.TOOL_CALL_ARGUMENTS, *_inputs())
        _keep(said, semconv.TOOL_CALL_RESULT, given, semconv.TOOL_CALL_RESULT, *_outputs())
    elif kind == "retrieval":
        _keep(said, semconv.RETRIEVAL_QUERY, given, names.RETRIEVAL_QUERY, "gen_ai.memory.query.text", *_inputs())
        _keep(said, semconv.RETRIEVAL_DOCUMENTS, given, names.RETRIEVAL_DOCUMENTS, "gen_ai.memory.records")
        _read_documents(given, said)
    else:
        for name in (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES):
            if given.get(name):
                said.attributes[name] = chat_messages(given[name])
        _keep(said, _INPUT, given, *_inputs())
        _keep(said, _OUTPUT, given, *_outputs())
    return said


def _inputs() -> tuple[str, str]:
    return _INPUT, "traceloop.entity.input"


def _outputs() -> tuple[str, str]:
    return _OUTPUT, "traceloop.entity.output"


def _keep(said: Said, ours: str, given: Attributes, *theirs: str) -> None:
    """The first of ``theirs`` that is there, under our name."""
    for name in theirs:
        if given.get(name) is not None:
            said.attributes[ours] = parsed(given[name])
            said.read.add(name)
            return


def _read_request(given: Attributes, events: Sequence[Event], said: Said) -> None:
    system = system_messages(given.get(names.SYSTEM_INSTRUCTIONS))
    asked = chat_messages(given.get(names.INPUT_MESSAGES))
    told = [
        {"role": role, **message} for name, message in events if (role := names.MESSAGE_EVENTS.get(name)) is not None
    ]
    prompts = [message["gen_ai.prompt"] for name, message in events if "gen_ai.prompt" in message]
    said.messages = [
        *system,
        *(
            asked
            or chat_messages([_openinference(item) for item in names.family(given, "llm.input_messages")])
            or chat_messages([_openllmetry(item) for item in names.family(given, "gen_ai.prompt")])
            or chat_messages(told)
            or chat_messages(prompts[-1] if prompts else given.get("gen_ai.prompt"))
        ),
    ]
    said.read |= {names.SYSTEM_INSTRUCTIONS, names.INPUT_MESSAGES, "llm.input_messages", "gen_ai.prompt"}


def _read_answers(given: Attributes, events: Sequence[Event], said: Said) -> None:
    raw = parsed(given.get(names.OUTPUT_MESSAGES))
    items: list[Any] = raw if isinstance(raw, list) else [raw] if raw else []
    items = (
        items
        or [_openinference(item) for item in names.family(given, "llm.output_messages")]
        or [_openllmetry(item) for item in names.family(given, "gen_ai.completion")]
        or [_choice(told) for name, told in events if name == names.CHOICE_EVENT]
    )
    if not items:
        raw = parsed(
            next((told["gen_ai.completion"] for _, told in events if "gen_ai.completion" in told), None)
            or given.get("gen_ai.completion")
        )
        items = raw if isinstance(raw, list) else [raw] if raw else []
    for item in items:
        answer = chat_messages([{"role": "assistant", "content": item}] if isinstance(item, str) else [item])
        if not answer:
            continue
        if isinstance(item, Mapping) and item.get("finish_reason"):
            said.finish_reasons[len(said.answers)] = str(item["finish_reason"])
        said.answers.append({**answer[0], "role": "assistant"})
    said.read |= {names.OUTPUT_MESSAGES, "llm.output_messages", "gen_ai.completion"}


def _read_tools(given: Attributes, said: Said) -> None:
    schemas = [_inner(item, "tool").get("json_schema") for item in names.family(given, "llm.tools")]
    said.tools = (
        chat_tools(given.get(names.TOOL_DEFINITIONS))
        or chat_tools([schema for schema in schemas if schema])
        or chat_tools([_function(item) for item in names.family(given, "llm.request.functions")])
    )
    said.read |= {names.TOOL_DEFINITIONS, "llm.tools", "llm.request.functions"}


def _read_parameters(given: Attributes, said: Said) -> None:
    parameters = parsed(given.get(_PARAMETERS))
    if given.get("llm.finish_reason"):
        said.finish_reasons.setdefault(0, str(given["llm.finish_reason"]))
        said.read.add("llm.finish_reason")
    if isinstance(parameters, dict):
        said.attributes |= {
            names.INVOCATION_PARAMETERS[name]: value
            for name, value in parameters.items()
            if name in names.INVOCATION_PARAMETERS and value is not None
        }


def _read_documents(given: Attributes, said: Said) -> None:
    found = [item["document"] for item in names.family(given, "retrieval.documents") if _has(item, "document")]
    if found:
        said.attributes[semconv.RETRIEVAL_DOCUMENTS] = found
        said.read.add("retrieval.documents")


def _has(item: Any, name: str) -> bool:
    return isinstance(item, dict) and name in item


def _inner(item: Any, name: str) -> dict[str, Any]:
    """The map under a name of a nested value; empty where there is none."""
    found = item.get(name) if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}


def _openinference(item: Any) -> dict[str, Any]:
    message = dict(_inner(item, "message"))
    calls = [_inner(call, "tool_call") for call in names.numbered(message.pop("tool_calls", None))]
    parts = [_inner(part, "message_content") for part in names.numbered(message.pop("contents", None))]
    if parts:
        message["parts"] = [_openinference_part(part) for part in parts if part]
        message["parts"] += [
            {"type": "tool_call", "id": call.get("id"), **_inner(call, "function")} for call in calls if call
        ]
    elif any(calls):
        message["tool_calls"] = [call for call in calls if call]
    return message


def _openinference_part(part: dict[str, Any]) -> dict[str, Any]:
    url = _inner(_inner(part, "image"), "image").get("url")
    if part.get("type") == "image" and "image" in part:
        return {"type": "uri", "modality": "image", "uri": str(url or "")}
    return {"type": "text", "content": part.get("text", "")} if "text" in part else part


def _openllmetry(item: Any) -> dict[str, Any]:
    message = dict(item) if isinstance(item, dict) else {"content": item}
    calls = names.numbered(message.get("tool_calls"))
    return {**message, "tool_calls": calls} if calls else message


def _function(item: Any) -> dict[str, Any]:
    return {**item, "parameters": parsed(item.get("parameters"))} if isinstance(item, dict) else {}


def _choice(told: Attributes) -> dict[str, Any]:
    message = parsed(told.get("message"))
    inner = (
        message if isinstance(message, dict) else {"content": message if message is not None else told.get("content")}
    )
    return {**{name: value for name, value in told.items() if name != "message"}, "role": "assistant", **inner}
