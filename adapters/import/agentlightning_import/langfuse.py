"""Exports of Langfuse.

Traces with their observations and scores, as ``GET /api/public/traces/{id}`` gives them (``TraceWithFullDetails`` of
https://api.reference.langfuse.com); rows of traces, observations and scores, as the lists of that API
(https://langfuse.com/docs/api-and-data-platform/features/observations-api) and blob storage have them
(https://langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes, tool_attributes, without_none
from agentlightning.importers.base import Importer, LateRewards, Row, Unread
from agentlightning.records import Span, SpanKind, Usage
from agentlightning.redaction import redact_config
from agentlightning.store.base import Recorded
from agentlightning_import.calls import Answer, fill_call, usage_of
from agentlightning_import.failures import failure_of
from agentlightning_import.messages import Message, answer_of, chat_messages, chat_tools, is_tool_definition
from agentlightning_import.scores import Score
from agentlightning_import.trace import UNKNOWN, Assembler, Step, Trace
from agentlightning_import.values import count, first, mapping, number, parsed, seconds, text

_KINDS: dict[str, SpanKind] = {
    "SPAN": "agent",
    "GENERATION": "llm",
    "EVENT": "annotation",
    "AGENT": "agent",
    "TOOL": "tool",
    "CHAIN": "agent",
    "RETRIEVER": "retrieval",
    "EVALUATOR": "annotation",
    "EMBEDDING": "llm",
    "GUARDRAIL": "annotation",
}
"""The type of an observation → the kind of its span."""
_LABELS = ("CATEGORICAL", "TEXT", "CORRECTION")
"""Types of scores whose number says nothing: an index of a category, or always 0."""


@dataclass(slots=True)
class _Parts:
    """What the files have of one trace."""

    trace: Row | None = None
    observations: list[Row] = field(default_factory=list)
    scores: list[Row] = field(default_factory=list)


class Langfuse(Importer):
    """A trace is a rollout; a score of it, or of its root, is its outcome, one of another observation a step reward."""

    name = "langfuse"

    def __init__(self, run_id: str, unread: Unread) -> None:
        super().__init__(run_id, unread)
        self._assembler = Assembler(self, "observation")

    @classmethod
    def recognizes(cls, record: Mapping[str, Any]) -> bool:
        return _is_trace(record) or _is_observation(record) or _is_score(record)

    def read(self, rows: Iterable[Row]) -> Iterator[Recorded | LateRewards]:
        traces: dict[str, _Parts] = {}
        for row in rows:
            self._sort(row, traces)
        for id, parts in traces.items():
            if parts.trace is None and not parts.observations:
                where = parts.scores[0].where
                late = self.attempt("score", where, self._late, id, parts)
                if late is not None and late.rewards:
                    yield late
            else:
                where = (parts.trace or parts.observations[0]).where
                found = self.attempt("trace", where, self._rollout, id, parts)
                if found is not None:
                    yield found

    def _late(self, id: str, parts: _Parts) -> LateRewards:
        scores = [score for row in parts.scores for score in self._scores([row.decoded()], row.where)]
        return LateRewards(*self._assembler.late_rewards(id, scores), parts.scores[0].where)

    def _sort(self, row: Row, traces: dict[str, _Parts]) -> None:
        """Puts a record with its trace."""
        try:
            record = row.decoded()
        except (msgspec.DecodeError, RecursionError):
            self.unread.add("record", "it cannot be decoded", row.where)
            return
        if not isinstance(record, dict):
            self.unread.add("record", "it is no JSON object", row.where)
        elif _is_observation(record):
            self._put(row, first(record, "traceId", "trace_id"), "observation", traces)
        elif _is_score(record):
            self._put(row, first(record, "traceId", "trace_id"), "score", traces)
        elif _is_trace(record):
            traces.setdefault(str(record["id"]), _Parts()).trace = row
        else:
            self.unread.add("record", "it is no trace, no observation and no score of Langfuse", row.where)

    def _put(self, row: Row, trace: Any, what: str, traces: dict[str, _Parts]) -> None:
        if trace is None:
            self.unread.add(what, "it has no trace id", row.where)
            return
        parts = traces.setdefault(str(trace), _Parts())
        (parts.observations if what == "observation" else parts.scores).append(row)

    def _rollout(self, id: str, parts: _Parts) -> Recorded:
        row = parts.trace or parts.observations[0]
        record = parts.trace.decoded() if parts.trace is not None else {}
        observations = [(one, row.where) for one in _listed(record, "observations")]
        observations += [(other.decoded(), other.where) for other in parts.observations]
        if not observations and (_named(record, "observations") or count(first(record, "observationCount"))):
            missing = _named(record, "observations") or count(first(record, "observationCount"))
            self.unread.add("observation", "its trace names it, and it is not in these files", row.where, missing)
        steps = [step for one, where in observations for step in self._steps(one, where)]
        scores = self._scores(_listed(record, "scores"), row.where)
        scores += [score for other in parts.scores for score in self._scores([other.decoded()], other.where)]
        about = record or observations[0][0]
        trace = Trace(
            id=id,
            where=row.where,
            name=text(record, "name") or text(about, "traceName", "trace_name"),
            input=parsed(first(record, "input")),
            output=parsed(first(record, "output")),
            at=seconds(first(record, "timestamp")),
            attributes=without_none(
                {
                    "langfuse.trace.id": id,
                    semconv.CONVERSATION_ID: first(about, "sessionId", "session_id"),
                    "user.id": first(about, "userId", "user_id"),
                    "langfuse.trace.tags": parsed(first(about, "tags")) or None,
                    "langfuse.trace.metadata": redact_config(parsed(first(record, "metadata"))) or None,
                }
            ),
        )
        return self._assembler.rollout(trace, steps, scores)

    def _steps(self, record: Any, where: str) -> list[Step]:
        if not isinstance(record, dict) or first(record, "id") is None:
            self.unread.add("observation", "it has no id", where)
            return []
        kind = _KINDS.get(str(record.get("type")).upper())
        if kind is None:
            self.unread.add("observation", f"its type {record.get('type')!r} is none: kept as an annotation", where)
        started = seconds(first(record, "startTime", "start_time"))
        if started is None:
            self.unread.add("observation", "it has no time at which it began: its trace's is taken", where)
        span = Span(
            id=str(record["id"]),
            rollout_id="",
            parent_id=text(record, "parentObservationId", "parent_observation_id"),
            kind=kind or "annotation",
            name=str(first(record, "name") or record.get("type") or "observation"),
            started_at=UNKNOWN if started is None else started,
            ended_at=seconds(first(record, "endTime", "end_time")),
        )
        asked, said = parsed(first(record, "input")), parsed(first(record, "output"))
        spans = self._filled(span, record, asked, said, where)
        metadata = redact_config(mapping(first(record, "metadata")))
        if metadata:
            span.attributes["langfuse.observation.metadata"] = metadata
        if str(record.get("level")).upper() == "ERROR":
            span.failure = failure_of(span.kind, str(first(record, "statusMessage", "status_message") or "failed"))
        elif first(record, "statusMessage", "status_message") is not None:
            span.attributes["langfuse.observation.status_message"] = first(record, "statusMessage", "status_message")
        return [Step(one, asked, said) for one in spans]

    def _filled(self, span: Span, record: dict[str, Any], asked: Any, said: Any, where: str) -> list[Span]:
        kind = str(record.get("type")).upper()
        if kind == "GENERATION":
            return self._call(span, record, asked, said, where)
        if kind == "EMBEDDING":
            span.attributes |= without_none(
                {semconv.OPERATION_NAME: "embeddings", semconv.REQUEST_MODEL: _model(record)}
            )
        elif kind == "TOOL":
            span.attributes |= tool_attributes(span.name, arguments=asked)
            span.attributes |= without_none({semconv.TOOL_CALL_RESULT: said})
        elif kind == "RETRIEVER":
            about = {semconv.RETRIEVAL_QUERY: asked, semconv.RETRIEVAL_DOCUMENTS: said}
            span.attributes |= {semconv.OPERATION_NAME: "retrieval", **without_none(about)}
        elif span.kind == "agent":
            span.attributes |= agent_attributes(kind.lower())
            span.agent = span.name if kind == "AGENT" else None
        return [span]

    def _call(self, span: Span, record: dict[str, Any], asked: Any, said: Any, where: str) -> list[Span]:
        messages = chat_messages(asked)
        if messages is None:
            self.unread.add("generation", "its input is in no shape of messages: kept as it is", where)
            span.attributes |= without_none({"input.value": asked, "output.value": said})
        own_tools = chat_tools(first(asked, "tools", "functions")) if isinstance(asked, dict) else []
        defined = [message for message in messages or () if _defines_tool(message)]
        tools = (
            own_tools
            or chat_tools([message["content"] for message in defined])
            or chat_tools(first(record, "toolDefinitions", "tool_definitions"))
        )
        answer = answer_of(said)
        parameters = redact_config(mapping(first(record, "modelParameters", "model_parameters")))
        if parameters:
            span.attributes["langfuse.observation.model_parameters"] = parameters
        return fill_call(
            span,
            messages=[message for message in messages or () if message not in defined],
            answers=[Answer(answer, _finish_reason(record, said))] if answer is not None else [],
            tools=tools,
            model=_model(record),
            parameters=parameters,
            usage=_usage(record),
        )

    def _scores(self, records: Iterable[Any], where: str) -> list[Score]:
        found = []
        for record in records:
            name = first(record, "name") if isinstance(record, dict) else None
            if name is None:
                self.unread.add("score", "it has no name", where)
                continue
            label = text(record, "stringValue", "string_value")
            is_label = str(first(record, "dataType", "data_type") or "").upper() in _LABELS
            value = None if is_label else number(first(record, "value"))
            if value is None and label is None:
                self.unread.add("score", "it has no number and no label", where)
                continue
            step = text(record, "observationId", "observation_id")
            found.append(
                Score(
                    name=str(name),
                    value=value,
                    step=step,
                    at=seconds(first(record, "updatedAt", "updated_at", "timestamp", "createdAt", "created_at")),
                    source=text(record, "source"),
                    comment=text(record, "comment"),
                    label=label,
                )
            )
        return found


def _is_trace(record: Mapping[str, Any]) -> bool:
    own = isinstance(record.get("observations"), list) or first(record, "timestamp") is not None
    return first(record, "id") is not None and own and "run_type" not in record and "object" not in record


def _is_observation(record: Mapping[str, Any]) -> bool:
    return str(record.get("type")).upper() in _KINDS and ("startTime" in record or "start_time" in record)


def _is_score(record: Mapping[str, Any]) -> bool:
    of = "traceId" in record or "trace_id" in record
    scored = any(name in record for name in ("value", "stringValue", "string_value"))
    return of and scored and "name" in record and any(name in record for name in ("dataType", "data_type", "source"))


def _listed(record: Mapping[str, Any], name: str) -> list[Any]:
    """The records in a field; in lists of traces there are ids in their place."""
    value = record.get(name)
    return [item for item in value if not isinstance(item, str)] if isinstance(value, list) else []


def _named(record: Mapping[str, Any], name: str) -> int:
    """How many ids stand in a field."""
    value = record.get(name)
    return sum(isinstance(item, str) for item in value) if isinstance(value, list) else 0


def _defines_tool(message: Message) -> bool:
    """Langfuse's handler for LangChain puts the definitions of tools behind the messages, as messages of a tool."""
    return message["role"] == "tool" and "tool_call_id" not in message and is_tool_definition(message["content"])


def _model(record: Mapping[str, Any]) -> str | None:
    return text(record, "model", "providedModelName", "provided_model_name")


def _finish_reason(record: Mapping[str, Any], said: Any) -> str | None:
    metadata = mapping(first(record, "metadata"))
    reason = text(said, "finish_reason") if isinstance(said, dict) else None
    return reason or text(metadata, "finish_reason", "stop_reason")


def _usage(record: Mapping[str, Any]) -> Usage | None:
    """Tokens in and out: of ``usageDetails`` all categories of each, cached and reasoning ones included."""
    details = mapping(first(record, "usageDetails", "usage_details"))
    usage = mapping(first(record, "usage")) or details
    inputs = sum(count(value) for name, value in details.items() if name.startswith("input"))
    outputs = sum(count(value) for name, value in details.items() if name.startswith("output"))
    return usage_of(
        inputs or count(first(usage, "input", "promptTokens", "prompt_tokens") or first(record, "promptTokens")),
        outputs
        or count(first(usage, "output", "completionTokens", "completion_tokens") or first(record, "completionTokens")),
    )
