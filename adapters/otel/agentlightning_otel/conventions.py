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
MESSAGE_EVENTS = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
"""The events in which older instrumentations send messages, and the role of each."""
CHOICE_EVENT = "gen_ai.choice"
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"
INPUT_VALUE, OUTPUT_VALUE = "input.value", "output.value"
INVOCATION_PARAMETERS = "llm.invocation_parameters"

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

_OTHER_NAMES = {
    semconv.PROVIDER_NAME: "gen_ai.system llm.system llm.provider",
    semconv.REQUEST_MODEL: "llm.model_name llm.request.model_name embedding.model_name",
    semconv.RESPONSE_MODEL: "llm.response.model_name",
    semconv.REQUEST_SEED: "gen_ai.openai.request.seed",
    semconv.REQUEST_STREAM: "llm.is_streaming gen_ai.is_streaming",
    semconv.USAGE_INPUT_TOKENS: "gen_ai.usage.prompt_tokens llm.usage.prompt_tokens llm.token_count.prompt",
    semconv.USAGE_OUTPUT_TOKENS: (
        "gen_ai.usage.completion_tokens llm.usage.completion_tokens llm.token_count.completion"
    ),
    semconv.TIME_TO_FIRST_TOKEN: "gen_ai.response.time_to_first_chunk",
    semconv.CONVERSATION_ID: "session.id",
    semconv.AGENT_NAME: "agent.name",
    semconv.TOOL_NAME: "tool.name",
    semconv.TOOL_DESCRIPTION: "tool.description",
    semconv.TOOL_CALL_ID: "tool.id tool_call.id",
    semconv.RETRIEVAL_QUERY: RETRIEVAL_QUERY,
    semconv.RETRIEVAL_DOCUMENTS: RETRIEVAL_DOCUMENTS,
}
ALIASES = {name: ours for ours, others in _OTHER_NAMES.items() for name in others.split()}
"""Another name → ours. Where a span has both, ours stays."""

PARAMETERS = {
    "model": semconv.REQUEST_MODEL,
    "temperature": semconv.REQUEST_TEMPERATURE,
    "top_p": semconv.REQUEST_TOP_P,
    "max_tokens": semconv.REQUEST_MAX_TOKENS,
    "max_completion_tokens": semconv.REQUEST_MAX_TOKENS,
    "seed": semconv.REQUEST_SEED,
    "stream": semconv.REQUEST_STREAM,
}
"""Keys of OpenInference's `INVOCATION_PARAMETERS` → our names."""

_GEN_AI_PREFIXES = ("gen_ai.", "openinference.", "traceloop.", "llm.", "agentlightning.")

_Meaning = tuple[SpanKind, str | None]
"""The kind of a span, and for an agent what it stands for."""
_LLM: _Meaning = ("llm", None)
_TOOL: _Meaning = ("tool", None)
_RETRIEVAL: _Meaning = ("retrieval", None)
_MEANINGS: dict[str, dict[str, _Meaning]] = {
    semconv.OPERATION_NAME: {
        **dict.fromkeys(("chat", "generate_content", "text_completion", "embeddings"), _LLM),
        "execute_tool": _TOOL,
        "invoke_agent": ("agent", "agent"),
        "invoke_workflow": ("agent", "workflow"),
        "plan": ("agent", "plan"),
        **dict.fromkeys(("retrieval", "search_memory"), _RETRIEVAL),
    },
    "openinference.span.kind": {
        **dict.fromkeys(("LLM", "EMBEDDING"), _LLM),
        "TOOL": _TOOL,
        "AGENT": ("agent", "agent"),
        "CHAIN": ("agent", "chain"),
        **dict.fromkeys(("RETRIEVER", "RERANKER"), _RETRIEVAL),
    },
    "traceloop.span.kind": {
        **{kind: ("agent", kind) for kind in ("workflow", "task", "agent")},
        "tool": _TOOL,
    },
}
"""Attribute → its value → what the span is."""
_KINDS = ("llm", "tool", "agent", "retrieval", "handoff", "annotation")
_REQUESTED = (semconv.REQUEST_MODEL, *(name for name, ours in ALIASES.items() if ours == semconv.REQUEST_MODEL))
_USAGE = (semconv.USAGE_INPUT_TOKENS, semconv.USAGE_OUTPUT_TOKENS)
_ANSWERED = (
    *(semconv.RESPONSE_MODEL, semconv.RESPONSE_FINISH_REASONS, *_USAGE),
    *(name for name, ours in ALIASES.items() if ours in _USAGE),
)
_OPERATIONS = {
    "openinference.span.kind": {"LLM": "chat", "EMBEDDING": "embeddings"},
    "llm.request.type": {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"},
}
_MAX_INDEX_DIGITS = 9
"""Of an index in a flattened list."""
MAX_DEPTH = 20
"""How far a flattened value nests; what is below that stays one name."""


def is_gen_ai(attributes: Mapping[str, Any]) -> bool:
    """Whether a span has to do with a model at all."""
    return any(name.startswith(_GEN_AI_PREFIXES) for name in attributes)


def meaning(attributes: Mapping[str, Any]) -> _Meaning:
    """What a span is: its kind and, where it is an agent, its structure. What has no known name is an annotation."""
    own = attributes.get(SPAN_KIND)
    if own in _KINDS:
        return own, attributes.get(semconv.STRUCTURE)
    if attributes.get(TRANSFER_TARGET):
        return "handoff", None
    for name, meanings in _MEANINGS.items():
        found = meanings.get(str(attributes.get(name)))
        if found is not None:
            return found
    return _LLM if "llm.request.type" in attributes or _is_unnamed_call(attributes) else ("annotation", None)


def operation(attributes: Mapping[str, Any]) -> str | None:
    """The GenAI operation of a span, also where another convention names it."""
    if attributes.get(semconv.OPERATION_NAME):
        return str(attributes[semconv.OPERATION_NAME])
    for name, operations in _OPERATIONS.items():
        found = operations.get(str(attributes.get(name)))
        if found is not None:
            return found
    return "chat" if _is_unnamed_call(attributes) else None


def _is_unnamed_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span has what only a call of a model has, though nothing names it."""

    def has(names: Any) -> bool:
        return any(attributes.get(name) is not None for name in names)

    return has(_REQUESTED) and has(_ANSWERED) and not has(_MEANINGS)


def renamed(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes under the names of `agentlightning.semconv`."""
    ours = {name: value for name, value in attributes.items() if name not in ALIASES}
    for name, value in attributes.items():
        if name in ALIASES:
            ours.setdefault(ALIASES[name], value)
    return ours


def unflattened(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """A list that was flattened into attributes: ``prefix.0.role``, ``prefix.1.content`` … as nested values."""
    root: dict[str, Any] = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        *path, last = name.removeprefix(f"{prefix}.").split(".", MAX_DEPTH)
        target = root
        for key in path:
            inner = target.get(key)
            target = target.setdefault(key, {}) if isinstance(inner, dict | None) else {}
        target[last] = value
    return numbered(root)


def numbered(nested: Any) -> list[Any]:
    """The members of a nested value whose keys are 0, 1, 2 …"""
    if not isinstance(nested, dict):
        return []
    indices = [key for key in nested if key.isdecimal() and len(key) <= _MAX_INDEX_DIGITS]
    return [nested[key] for key in sorted(indices, key=int)]
