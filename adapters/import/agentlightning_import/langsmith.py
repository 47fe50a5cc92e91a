"""Exports of LangSmith: runs, as `Client.list_runs` gives them, and feedback.

The run data format (https://docs.langchain.com/langsmith/run-data-format), nested under ``child_runs`` or flat, and the
feedback data format (https://docs.langchain.com/langsmith/feedback-data-format). What a model's run was asked and
answered is LangChain's own (messages in ``lc`` serialisation, ``generations``), that of the wrapped OpenAI client, or
``messages``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.attributes import agent_attributes, tool_attributes, without_none
from agentlightning.importers.base import Importer, LateRewards, Row, Unread
from agentlightning.records import Span, SpanKind, Usage
from agentlightning.redaction import redact_config
from agentlightning.store.base import Recorded
from agentlightning_import.calls import Answer, fill_call, usage_of
from agentlightning_import.failures import CONTROL_FLOW, exception_of, failure_of
from agentlightning_import.messages import answer_of, chat_messages, chat_tools
from agentlightning_import.scores import Score
from agentlightning_import.trace import UNKNOWN, Assembler, Step, Trace
from agentlightning_import.values import as_text, count, first, mapping, number, parsed, seconds, text

_KINDS: dict[str, SpanKind] = {
    "llm": "llm",
    "chat_model": "llm",
    "chain": "agent",
    "tool": "tool",
    "retriever": "retrieval",
    "embedding": "llm",
    "prompt": "annotation",
    "parser": "annotation",
}
"""The type of a run → the kind of its span."""
_UNNAMED = "LangGraph"
"""What a graph is called that nobody gave a name to."""
_LOOP_NODES = (
    *("agent", "model", "call_model", "llm", "llm_call", "tools", "tool_node"),
    *("pre_model_hook", "post_model_hook", "generate_structured_response"),
)
"""Nodes of an agent's loop: in a graph with a name none of them says who acts."""

_Record = dict[str, Any]


class LangSmith(Importer):
    """A trace is a rollout; feedback on its root is its outcome, on another run a step reward. Of a key that has
    records of feedback those count, else the mean in ``feedback_stats``."""

    name = "langsmith"

    def __init__(self, run_id: str, unread: Unread) -> None:
        super().__init__(run_id, unread)
        self._assembler = Assembler(self, "run")

    @classmethod
    def recognizes(cls, record: Mapping[str, Any]) -> bool:
        return _is_run(record) or _is_feedback(record)

    def read(self, rows: Iterable[Row]) -> Iterator[Recorded | LateRewards]:
        traces: dict[str, list[Row]] = {}
        trace_of: dict[str, str] = {}
        feedback: list[Row] = []
        for row in rows:
            record = self._decoded(row)
            if record is None:
                continue
            if _is_feedback(record):
                feedback.append(row)
            elif _is_run(record):
                trace = _trace_id(record)
                traces.setdefault(trace, []).append(row)
                trace_of |= dict.fromkeys((str(run["id"]) for run in _nested(record) if "id" in run), trace)
            else:
                self.unread.add("record", "it is no run and no feedback of LangSmith", row.where)
        scores = self._feedback(feedback, trace_of)
        for trace, rows_of_trace in traces.items():
            own = [score for score, _ in scores.pop(trace, ())]
            found = self.attempt("trace", rows_of_trace[0].where, self._rollout, trace, rows_of_trace, own)
            if found is not None:
                yield found
        for trace, late in scores.items():
            rewards = self._assembler.late_rewards(trace, [score for score, _ in late])
            yield LateRewards(*rewards, late[0][1])

    def _decoded(self, row: Row) -> _Record | None:
        try:
            record = row.decoded()
        except (msgspec.DecodeError, RecursionError):
            self.unread.add("record", "it cannot be decoded", row.where)
            return None
        if not isinstance(record, dict):
            self.unread.add("record", "it is no JSON object", row.where)
            return None
        return record

    def _feedback(self, rows: Iterable[Row], trace_of: Mapping[str, str]) -> dict[str, list[tuple[Score, str]]]:
        """Scores, and where each is, by their trace."""
        found: dict[str, list[tuple[Score, str]]] = {}
        for row in rows:
            record = row.decoded()
            run = first(record, "run_id")
            trace = trace_of.get(str(run)) or first(record, "trace_id") or run
            if trace is None:
                self.unread.add("feedback", "it has no run id", row.where)
                continue
            value, label = number(first(record, "score")), first(record, "value")
            if value is None and label is None:
                self.unread.add("feedback", "it has no score and no value", row.where)
                continue
            score = Score(
                name=str(record["key"]),
                value=value,
                step=None if run is None or str(run) == str(trace) else str(run),
                at=seconds(first(record, "modified_at", "created_at")),
                source=text(mapping(first(record, "feedback_source")), "type"),
                comment=text(record, "comment"),
                label=None if label is None else as_text(label),
            )
            found.setdefault(str(trace), []).append((score, row.where))
        return found

    def _rollout(self, id: str, rows: list[Row], feedback: list[Score]) -> Recorded | None:
        runs = [(run, row.where) for row in rows for run in _nested(row.decoded())]
        by_id = {str(run.get("id")): run for run, _ in runs}
        root = by_id.get(id) or next((run for run, _ in runs if first(run, "parent_run_id") is None), runs[0][0])
        if first(root, "end_time") is None and root.get("status") == "pending":
            self.unread.add("trace", "it had not ended when it was exported", rows[0].where)
            return None
        steps = [step for run, where in runs for step in self._steps(run, where, by_id)]
        given = {(score.name, score.step) for score in feedback}
        scores = [*feedback]
        for run, where in runs:
            step = None if str(run.get("id")) == id else str(run.get("id"))
            scores += [one for one in self._stats(run, step, where) if (one.name, one.step) not in given]
        metadata = _metadata(root)
        trace = Trace(
            id=id,
            where=rows[0].where,
            name=_agent(root, None) or text(root, "name"),
            attributes=without_none(
                {
                    "langsmith.trace.id": id,
                    "langsmith.trace.session_name": first(root, "session_name"),
                    semconv.CONVERSATION_ID: first(metadata, "thread_id", "session_id", "conversation_id"),
                    "langsmith.trace.tags": first(root, "tags") or None,
                }
            ),
        )
        return self._assembler.rollout(trace, steps, scores)

    def _stats(self, run: _Record, step: str | None, where: str) -> Iterator[Score]:
        """The feedback of a run, as it was summed up: a mean for each key, or how often each label was given."""
        for key, stats in mapping(run.get("feedback_stats")).items():
            stats = stats if isinstance(stats, dict) else {"avg": stats}
            value, labels = number(first(stats, "avg")), mapping(stats.get("values"))
            if value is None and not labels:
                self.unread.add("feedback", "it has no score and no value", where)
                continue
            comments = [as_text(comment) for comment in stats.get("comments") or () if comment]
            times = count(stats.get("n"))
            sources = {as_text(mapping(source).get("type") or source) for source in stats.get("sources") or ()}
            yield Score(
                name=str(key),
                value=value,
                step=step,
                at=seconds(first(run, "end_time", "start_time")),
                source=", ".join(sorted(sources)) or None,
                comment="; ".join([*([f"the mean of {times}"] if times > 1 else []), *comments]) or None,
                label=", ".join(sorted(labels)) or None,
            )

    def _steps(self, run: _Record, where: str, runs: Mapping[str, _Record]) -> list[Step]:
        if first(run, "id") is None:
            self.unread.add("run", "it has no id", where)
            return []
        type = str(run.get("run_type"))
        if type not in _KINDS:
            self.unread.add("run", f"its run_type {type!r} is none: kept as an annotation", where)
        started = seconds(first(run, "start_time"))
        if started is None:
            self.unread.add("run", "it has no time at which it began: its trace's is taken", where)
        parent = first(run, "parent_run_id")
        metadata = _metadata(run)
        name = str(first(run, "name") or type)
        span = Span(
            id=str(run["id"]),
            rollout_id="",
            parent_id=None if parent is None else str(parent),
            kind=_KINDS.get(type, "annotation"),
            name=name,
            agent=_agent(run, runs.get(str(parent))),
            started_at=UNKNOWN if started is None else started,
            ended_at=seconds(first(run, "end_time")),
        )
        asked, said = parsed(first(run, "inputs")), parsed(first(run, "outputs"))
        spans = self._filled(span, run, asked, said, where)
        if metadata:
            span.attributes["langsmith.metadata"] = redact_config(metadata)
        error = first(run, "error")
        if error is not None and exception_of(str(error)) in CONTROL_FLOW:
            span.attributes[semconv.INTERRUPTED] = True
        elif error is not None:
            span.failure = failure_of(span.kind, str(error))
        return [Step(one, _unwrapped(asked), _unwrapped(said)) for one in spans]

    def _filled(self, span: Span, run: _Record, asked: Any, said: Any, where: str) -> list[Span]:
        type = run.get("run_type")
        if type in ("llm", "chat_model"):
            return self._call(span, run, mapping(asked), mapping(said), where)
        if type == "embedding":
            span.attributes[semconv.OPERATION_NAME] = "embeddings"
        elif type == "tool":
            message = _message_of_tool(said)
            span.attributes |= tool_attributes(span.name, message.get("tool_call_id"), _arguments(asked))
            span.attributes |= without_none({semconv.TOOL_CALL_RESULT: message.get("content", _unwrapped(said))})
        elif type == "retriever":
            documents = first(mapping(said), "documents", "output")
            about = {semconv.RETRIEVAL_QUERY: _unwrapped(asked), semconv.RETRIEVAL_DOCUMENTS: documents}
            span.attributes |= {semconv.OPERATION_NAME: "retrieval", **without_none(about)}
        elif span.kind == "agent":
            is_node = first(_metadata(run), "langgraph_node") == run.get("name")
            span.attributes |= agent_attributes("node" if is_node else "chain")
        return [span]

    def _call(self, span: Span, run: _Record, asked: _Record, said: _Record, where: str) -> list[Span]:
        prompt = first(asked, "messages", "prompts", "input", "prompt")
        messages = chat_messages(prompt)
        if messages is None and asked:
            self.unread.add("llm run", "its inputs are in no shape of messages: kept as they are", where)
            span.attributes |= without_none({"input.value": asked, "output.value": said or None})
        metadata = _metadata(run)
        parameters = mapping(first(mapping(run.get("extra")), "invocation_params"))
        parameters = {
            **{name: metadata.get(f"ls_{name}") for name in ("temperature", "max_tokens")},
            **asked,
            **without_none(parameters),
        }
        answers = _answers(said)
        return fill_call(
            span,
            messages=messages or [],
            answers=answers,
            tools=chat_tools(first(parameters, "tools", "functions")),
            model=_model(said, parameters, metadata),
            parameters=redact_config({k: v for k, v in parameters.items() if isinstance(v, str | int | float)}),
            usage=_usage(run, said),
        )


def _is_run(record: Mapping[str, Any]) -> bool:
    return "run_type" in record and "id" in record


def _is_feedback(record: Mapping[str, Any]) -> bool:
    return "key" in record and "run_id" in record and ("score" in record or "value" in record)


def _nested(record: _Record) -> Iterator[_Record]:
    """A run and those under it."""
    waiting = [record]
    while waiting:
        run = waiting.pop()
        yield run
        children = run.get("child_runs")
        for child in children if isinstance(children, list) else ():
            if isinstance(child, dict):
                child.setdefault("parent_run_id", run.get("id"))
                waiting.append(child)


def _trace_id(record: Mapping[str, Any]) -> str:
    """By its field, else by ``dotted_order`` (``<time>Z<uuid of the root>.…``), else a root's own id."""
    if first(record, "trace_id") is not None:
        return str(record["trace_id"])
    root = str(first(record, "dotted_order") or "").partition(".")[0].partition("Z")[2]
    return root or str(record["id"])


def _metadata(run: Mapping[str, Any]) -> _Record:
    return mapping(first(mapping(run.get("extra")), "metadata"))


def _agent(run: Mapping[str, Any], above: Mapping[str, Any] | None) -> str | None:
    """The agent that a run is, as the adapter of LangGraph names it: what ``create_agent`` was told, the graph's name
    for a node of an agent's loop, else the node's own. None: that of the run which it is under."""
    metadata = _metadata(run)
    name = first(metadata, "lc_agent_name")
    if name is not None:
        return str(name)
    node = first(metadata, "langgraph_node")
    if node is None or node != run.get("name") or above is None:
        return None
    graph = first(above, "name")
    return str(graph) if graph != _UNNAMED and node in _LOOP_NODES else str(node)


def _unwrapped(value: Any) -> Any:
    """Without the ``input`` or ``output`` that LangChain puts around what is no mapping."""
    if isinstance(value, dict) and len(value) == 1:
        return first(value, "input", "output") or value
    return value


def _arguments(asked: Any) -> Any:
    value = _unwrapped(asked)
    found = parsed(value)
    if not isinstance(found, str) or not found.startswith(("{", "[")):
        return found
    try:
        return ast.literal_eval(found)  # LangChain writes them as Python does
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return found


def _message_of_tool(said: Any) -> _Record:
    """The message that a tool's output is, where it is one."""
    output = _unwrapped(said)
    messages = chat_messages(output) if isinstance(output, dict) else None
    return messages[0] if messages and messages[0]["role"] == "tool" else {}


def _answers(said: _Record) -> list[Answer]:
    """LangChain's generations, the choices of the chat API, or messages."""
    generations = first(said, "generations")
    if isinstance(generations, list):
        flat = [one for item in generations for one in (item if isinstance(item, list) else [item])]
        return [answer for one in flat if isinstance(one, dict) and (answer := _of_generation(one)) is not None]
    choices = first(said, "choices")
    if isinstance(choices, list):
        found = []
        for choice in choices:
            message = answer_of(first(mapping(choice), "message", "text", "delta"))
            if message is not None:
                found.append(Answer(message, text(mapping(choice), "finish_reason")))
        return found
    message = answer_of(first(said, "messages", "message", "output") or said)
    return [Answer(message, text(said, "finish_reason", "stop_reason"))] if message is not None else []


def _of_generation(generation: _Record) -> Answer | None:
    message = answer_of(first(generation, "message", "text"))
    kwargs = mapping(mapping(generation.get("message")).get("kwargs")) or mapping(generation.get("message"))
    details = {**mapping(generation.get("generation_info")), **mapping(kwargs.get("response_metadata"))}
    reason = text(details, "finish_reason", "stop_reason", "done_reason")
    return Answer(message, reason) if message is not None else None


def _message_fields(said: _Record) -> Iterator[_Record]:
    """The fields of LangChain's messages among the generations."""
    generations = first(said, "generations")
    for item in generations if isinstance(generations, list) else ():
        for one in item if isinstance(item, list) else [item]:
            message = mapping(mapping(one).get("message"))
            yield mapping(message.get("kwargs")) or message


def _model(said: _Record, parameters: _Record, metadata: _Record) -> str | None:
    told = (mapping(fields.get("response_metadata")) for fields in _message_fields(said))
    places = [*told, mapping(said.get("llm_output")), said, parameters]
    names = (first(place, "model_name", "model") for place in places)
    found = next((name for name in names if name is not None), None) or first(metadata, "ls_model_name")
    return None if found is None else str(found)


def _usage(run: _Record, said: _Record) -> Usage | None:
    told = [mapping(fields.get("usage_metadata")) for fields in _message_fields(said)]
    output = mapping(said.get("llm_output"))
    places = [run, mapping(said.get("usage_metadata")), mapping(said.get("usage")), *told]
    for place in [*places, mapping(output.get("token_usage")), mapping(output.get("usage"))]:
        inputs = count(first(place, "prompt_tokens", "input_tokens"))
        found = usage_of(inputs, count(first(place, "completion_tokens", "output_tokens")))
        if found is not None:
            return found
    return None
