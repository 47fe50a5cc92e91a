"""Which attributes say what: the GenAI conventions as they are, as they were, and two others' names.

Two others: OpenInference (``llm.*``, ``openinference.span.kind``) and OpenLLMetry (``traceloop.*``,
``gen_ai.prompt.<n>.*``). Everything is brought to the names of `agentlightning.semconv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlightning import semconv
from agentlightning.records import SpanKind

INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
WORKFLOW_NAME = "gen_ai.workflow.name"
TRANSFER_TARGET = "gen_ai.transfer.target.name"
EVALUATION_LABEL = "gen_ai.evaluation.score.label"
EVALUATION_EVENT = "gen_ai.evaluation.result"
DETAILS_EVENT = "gen_ai.client.inference.operation.details"
MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""The events in which older instrumentations tell what was said, and whose messages they are."""
CHOICE_EVENT = "gen_ai.choice"
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"

# Ours: what has no standard name, on the spans that are sent.
SPAN_KIND = "agentlightning.span.kind"
FAULT = "agentlightning.failure.fault"
REWARD_WEIGHT = "agentlightning.reward.weight"
REWARD_STEP = "agentlightning.reward.step"
RUN_ID = "agentlightning.run.id"
ROLLOUT_ID = "agentlightning.rollout.id"
TASK_ID = "agentlightning.task.id"

EVENTS = "agentlightning.otel.events"
"""On a received span: the message events that came apart from it, by what orders them."""

ALIASES = {
    "gen_ai.system": semconv.PROVIDER_NAME,
    "llm.system": semconv.PROVIDER_NAME,
    "llm.provider": semconv.PROVIDER_NAME,
    "llm.model_name": semconv.REQUEST_MODEL,
    "llm.request.model_name": semconv.REQUEST_MODEL,
    "embedding.model_name": semconv.REQUEST_MODEL,
    "llm.response.model_name": semconv.RESPONSE_MODEL,
    "gen_ai.openai.request.seed": semconv.REQUEST_SEED,
    "llm.is_streaming": semconv.REQUEST_STREAM,
    "gen_ai.is_streaming": semconv.REQUEST_STREAM,
    "gen_ai.usage.prompt_tokens": semconv.USAGE_INPUT_TOKENS,
    "llm.usage.prompt_tokens": semconv.USAGE_INPUT_TOKENS,
    "llm.token_count.prompt": semconv.USAGE_INPUT_TOKENS,
    "gen_ai.usage.completion_tokens": semconv.USAGE_OUTPUT_TOKENS,
    "llm.usage.completion_tokens": semconv.USAGE_OUTPUT_TOKENS,
    "llm.token_count.completion": semconv.USAGE_OUTPUT_TOKENS,
    "gen_ai.response.time_to_first_chunk": semconv.TIME_TO_FIRST_TOKEN,
    "session.id": semconv.CONVERSATION_ID,
    "agent.name": semconv.AGENT_NAME,
    "tool.name": semconv.TOOL_NAME,
    "tool.description": semconv.TOOL_DESCRIPTION,
    "tool.id": semconv.TOOL_CALL_ID,
    "tool_call.id": semconv.TOOL_CALL_ID,
    RETRIEVAL_QUERY: semconv.RETRIEVAL_QUERY,
    RETRIEVAL_DOCUMENTS: semconv.RETRIEVAL_DOCUMENTS,
}
"""Another name → ours. Where a span has both, ours stays."""

INVOCATION_PARAMETERS = {
    "model": semconv.REQUEST_MODEL,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_completion_tokens": semconv.REQUEST_MAX_TOKENS,
    "seed": semconv.REQUEST_SEED,
    "stream": semconv.REQUEST_STREAM,
}
"""Keys of OpenInference's ``llm.invocation_parameters``."""

_MARKS = ("gen_ai.", "openinference.", "traceloop.", "llm.", "agentlightning.")

# What a span is: its kind, and for an agent what it stands for.
_Meaning = tuple[SpanKind, str | None]
_OPERATIONS: dict[str, _Meaning] = {
    "chat": ("llm", None),
    "generate_content": ("llm", None),
    "text_completion": ("llm", None),
    "embeddings": ("llm", None),
    "execute_tool": ("tool", None),
    "invoke_agent": ("agent", "agent"),
    "invoke_workflow": ("agent", "workflow"),
    "plan": ("agent", "plan"),
    "retrieval": ("retrieval", None),
    "search_memory": ("retrieval", None),
}
_OPENINFERENCE: dict[str, _Meaning] = {
    "LLM": ("llm", None),
    "EMBEDDING": ("llm", None),
    "TOOL": ("tool", None),
    "AGENT": ("agent", "agent"),
    "CHAIN": ("agent", "chain"),
    "RETRIEVER": ("retrieval", None),
    "RERANKER": ("retrieval", None),
}
_TRACELOOP: dict[str, _Meaning] = {
    "workflow": ("agent", "workflow"),
    "task": ("agent", "task"),
    "agent": ("agent", "agent"),
    "tool": ("tool", None),
}
_SPAN_KINDS = {"openinference.span.kind": _OPENINFERENCE, "traceloop.span.kind": _TRACELOOP}
_REQUESTED = (semconv.REQUEST_MODEL, *(name for name, ours in ALIASES.items() if ours == semconv.REQUEST_MODEL))
_ANSWERED = (
    semconv.RESPONSE_MODEL,
    semconv.RESPONSE_FINISH_REASONS,
    semconv.USAGE_INPUT_TOKENS,
    semconv.USAGE_OUTPUT_TOKENS,
    *(name for name, ours in ALIASES.items() if ours in (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS)),
)
_IMPLIED_OPERATION = {"LLM": "chat", "EMBEDDING": "embeddings"}
_LONGEST_PLACE = 9
"""Digits of a place in a flattened list."""
DEEPEST_PLACE = 20
"""How far a flattened value nests; what is below that stays one name."""
_KINDS = ("llm", "tool", "agent", "retrieval", "handoff", "annotation")


def is_gen_ai(attributes: Mapping[str, Any]) -> bool:
    """Whether a span has to do with a model at all."""
    return any(name.startswith(_MARKS) for name in attributes)


def meaning(attributes: Mapping[str, Any]) -> _Meaning:
    """What a span is: its kind and, where it is an agent, its structure. What nobody names is an annotation."""
    own = attributes.get(SPAN_KIND)
    if own in _KINDS:
        return own, attributes.get(semconv.STRUCTURE)
    if attributes.get(TRANSFER_TARGET):
        return "handoff", None
    for name, table in ((semconv.OPERATION_NAME, _OPERATIONS), *_SPAN_KINDS.items()):
        found = table.get(str(attributes.get(name)))
        if found is not None:
            return found
    if "llm.request.type" in attributes or _is_nameless_call(attributes):
        return "llm", None
    return "annotation", None


def _is_nameless_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span has what only a call of a model has, though nothing says what it is."""
    said = any(attributes.get(name) is not None for name in (semconv.OPERATION_NAME, *_SPAN_KINDS))
    asked = any(attributes.get(name) is not None for name in _REQUESTED)
    return asked and not said and any(attributes.get(name) is not None for name in _ANSWERED)


def operation(attributes: Mapping[str, Any]) -> str | None:
    """The GenAI operation of a span, also where another convention names it."""
    given = attributes.get(semconv.OPERATION_NAME) or _IMPLIED_OPERATION.get(
        str(attributes.get("openinference.span.kind"))
    )
    request = str(attributes.get("llm.request.type"))
    given = given or {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}.get(request)
    return given or ("chat" if _is_nameless_call(attributes) else None)


def renamed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes under the names of `agentlightning.semconv`."""
    ours = {name: value for name, value in attributes.items() if name not in ALIASES}
    for name, value in attributes.items():
        if name in ALIASES:
            ours.setdefault(ALIASES[name], value)
    return ours


def family(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """A list that was flattened into attributes: ``prefix.0.role``, ``prefix.1.content`` … as nested values."""
    root: dict[str, Any] = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        *path, last = name.removeprefix(f"{prefix}.").split(".", DEEPEST_PLACE)
        place = root
        for part in path:
            below = place.get(part)
            place = place.setdefault(part, {}) if isinstance(below, dict | None) else {}
        place[last] = value
    return numbered(root)


def numbered(nested: Any) -> list[Any]:
    """The members of a nested value whose keys are 0, 1, 2 …"""
    if not isinstance(nested, dict):
        return []
    places = [key for key in nested if key.isdecimal() and len(key) <= _LONGEST_PLACE]
    return [nested[key] for key in sorted(places, key=int)]
