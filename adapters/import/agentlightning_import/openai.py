"""Chats in the formats of OpenAI's platform, a line each.

- examples for fine-tuning: ``{"messages": […], "tools": […]}``
  (https://developers.openai.com/docs/guides/supervised-fine-tuning)
- pairs of a preferred and another output: ``{"input": {"messages": […]}, "preferred_output": […],
  "non_preferred_output": […]}`` (https://developers.openai.com/docs/guides/direct-preference-optimization)
- the output of an evaluation: ``eval.run.output_item``
  (https://developers.openai.com/api/reference/resources/evals/subresources/runs/subresources/output_items)
- stored completions: ``chat.completion`` with its request's messages under ``messages`` or ``input``
  (https://developers.openai.com/api/reference/resources/chat)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments, tool_attributes
from agentlightning.importers.base import Importer, LateRewards, Row, Unread, digest
from agentlightning.records import Span, Usage
from agentlightning.store.base import Recorded
from agentlightning_import.calls import Answer, fill_call, usage_of
from agentlightning_import.failures import failure_of
from agentlightning_import.messages import Message, answer_of, chat_messages, chat_tools
from agentlightning_import.scores import Score
from agentlightning_import.trace import Assembler, Step, Trace
from agentlightning_import.values import as_text, count, first, mapping, number, seconds, text

PREFERENCE = "preferred"
"""The name of the reward of a pair: 1 for the preferred output, 0 for the other."""
_SINCE = 1.0
"""When a message without a time was written, in seconds: one after the other."""

_Record = dict[str, Any]


class OpenAI(Importer):
    """A line is a rollout, a pair of preferences two of one task. Each answer of the assistant is a model's call, but
    those whose ``weight`` is 0."""

    name = "openai"

    def __init__(self, run_id: str, unread: Unread) -> None:
        super().__init__(run_id, unread)
        self._assembler = Assembler(self, "message")

    @classmethod
    def recognizes(cls, record: Mapping[str, Any]) -> bool:
        chat = isinstance(record.get("messages"), list) and "run_type" not in record and "type" not in record
        known = record.get("object") in ("chat.completion", "eval.run.output_item")
        return chat or known or "preferred_output" in record or "custom_id" in record

    def read(self, rows: Iterable[Row]) -> Iterator[Recorded | LateRewards]:
        seen: dict[str, str] = {}
        for row in rows:
            try:
                record = row.decoded()
            except (msgspec.DecodeError, RecursionError):
                self.unread.add("line", "it cannot be decoded", row.where)
                continue
            id = str(first(record, "id") or digest(_canonical(record))) if isinstance(record, dict) else ""
            if not id:
                self.unread.add("line", "it is no JSON object", row.where)
            elif id in seen:
                self.unread.add("line", "it is there twice", row.where)
            else:
                seen[id] = row.where
                yield from self.attempt("line", row.where, self._all, id, record, row.where) or ()

    def _all(self, id: str, record: _Record, where: str) -> list[Recorded]:
        return list(self._rollouts(id, record, where))

    def _rollouts(self, id: str, record: _Record, where: str) -> Iterator[Recorded]:
        if "preferred_output" in record or "non_preferred_output" in record:
            yield from self._pair(id, record, where)
        elif record.get("object") == "eval.run.output_item":
            yield from self._evaluated(id, record, where)
        elif record.get("object") == "chat.completion":
            yield from self._completion(id, record, where)
        elif isinstance(record.get("messages"), list):
            yield from self._example(id, record, where)
        elif "custom_id" in record:
            reason = "it is of the Batch API, which keeps requests and answers apart: join them to stored completions"
            self.unread.add("line", reason, where)
        else:
            self.unread.add("line", "it has neither messages nor a preferred_output", where)

    def _example(self, id: str, record: _Record, where: str) -> Iterator[Recorded]:
        messages = self._messages(record["messages"], where)
        if messages is None:
            return
        weights = [first(item, "weight") if isinstance(item, dict) else None for item in record["messages"]]
        counted = [message for message, weight in zip(messages, weights, strict=False) if weight != 0]
        learned = [message for message in counted if message["role"] == "assistant"]
        if not learned:
            self.unread.add("line", "it has no answer of the assistant that counts", where)
            return
        tools = chat_tools(first(record, "tools", "functions"))
        steps = _steps(messages, tools, answers={index for index, one in enumerate(messages) if one in learned})
        yield self._assembler.rollout(Trace(id, where, name="chat"), steps)

    def _pair(self, id: str, record: _Record, where: str) -> Iterator[Recorded]:
        request = mapping(record.get("input"))
        asked = self._messages(first(request, "messages"), where)
        outputs = [self._messages(record.get(name), where) for name in ("preferred_output", "non_preferred_output")]
        if asked is None:
            return
        tools = chat_tools(first(request, "tools"))
        for place, (output, value) in enumerate(zip(outputs, (1.0, 0.0), strict=True)):
            if not output:
                continue
            messages = [*asked, *output]
            answers = {len(asked) + index for index, one in enumerate(output) if one["role"] == "assistant"}
            score = Score(PREFERENCE, value, None, None, None, None)
            trace = Trace(f"{id} {place}", where, name="chat", input=_task(asked))
            yield self._assembler.rollout(trace, _steps(messages, tools, answers=answers), [score])

    def _evaluated(self, id: str, record: _Record, where: str) -> Iterator[Recorded]:
        sample = mapping(record.get("sample"))
        asked, said = self._messages(sample.get("input"), where), chat_messages(sample.get("output"))
        if asked is None:
            return
        at = seconds(first(record, "created_at"))
        usage = mapping(sample.get("usage"))
        span = _span("0", at)
        answers = [Answer(answer_of([said[-1]]) or said[-1], text(sample, "finish_reason"))] if said else []
        fill_call(
            span,
            messages=asked,
            answers=answers,
            tools=chat_tools(first(sample, "tools")),
            model=text(sample, "model"),
            parameters=sample,
            usage=_usage(usage),
        )
        error = mapping(sample.get("error"))
        if any(error.values()):
            span.failure = failure_of("llm", as_text(first(error, "message") or first(error, "code")))
        scores = [
            Score(
                name=str(first(result, "name") or "score"),
                value=number(first(result, "score")) if "score" in result else number(result.get("passed")),
                step=None,
                at=at,
                source=text(result, "type"),
                comment=None,
            )
            for result in map(mapping, record.get("results") or ())
        ]
        for score in scores:
            if score.value is None:
                self.unread.add("result", "it has neither a score nor whether it passed", where)
        about = {"openai.eval.id": record.get("eval_id"), "openai.eval.run.id": record.get("run_id")}
        about |= {"openai.eval.item": record.get("datasource_item")}
        attributes = {name: value for name, value in about.items() if value}
        trace = Trace(id, where, name="chat", at=at, attributes=attributes)
        yield self._assembler.rollout(trace, [Step(span)], [score for score in scores if score.value is not None])

    def _completion(self, id: str, record: _Record, where: str) -> Iterator[Recorded]:
        request = first(record, "messages", "input")
        if request is None:
            self.unread.add("line", "the messages of its request are not in it: put them under `messages`", where)
            return
        asked = self._messages(request, where)
        if asked is None:
            return
        at = seconds(first(record, "created"))
        span = _span("0", at)
        choices = [mapping(choice) for choice in record.get("choices") or ()]
        answers = [
            Answer(message, text(choice, "finish_reason"))
            for choice in choices
            if (message := answer_of(choice.get("message"))) is not None
        ]
        spans = fill_call(
            span,
            messages=asked,
            answers=answers,
            tools=chat_tools(first(record, "tools")),
            model=text(record, "model"),
            parameters=record,
            usage=_usage(mapping(record.get("usage"))),
        )
        metadata = mapping(record.get("metadata"))
        trace = Trace(id, where, name="chat", at=at, attributes={"openai.metadata": metadata} if metadata else {})
        yield self._assembler.rollout(trace, [Step(one) for one in spans])

    def _messages(self, value: Any, where: str) -> list[Message] | None:
        """None, and counted, for what are no messages."""
        found = chat_messages(value) if isinstance(value, list) else None
        if found is None:
            self.unread.add("line", "what should be messages are none", where)
        return found


def _steps(messages: Sequence[Message], tools: list[dict[str, Any]], *, answers: set[int]) -> list[Step]:
    """A call of a model for each answer, with all that was said before it, and a tool for each result after it."""
    steps = []
    names: dict[str, tuple[str, Any]] = {}
    for index, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            names[call["id"]] = (call["function"]["name"], parse_arguments(call["function"]["arguments"]))
        if index in answers:
            span = _span(str(index), None)
            fill_call(span, messages=messages[:index], answers=[Answer(message)], tools=tools)
            steps.append(Step(span))
        elif message["role"] == "tool" and any(answer < index for answer in answers):
            id = str(message.get("tool_call_id"))
            name, arguments = names.get(id, (str(message.get("name") or "tool"), None))
            span = Span(id=str(index), rollout_id="", kind="tool", name=name)
            span.attributes = tool_attributes(name, id, arguments)
            span.attributes[semconv.TOOL_CALL_RESULT] = message["content"]
            steps.append(Step(span))
    return steps


def _span(id: str, at: float | None) -> Span:
    span = Span(id=id, rollout_id="", kind="llm", name="chat")
    if at is not None:
        span.started_at = span.ended_at = at
    return span


def _task(asked: Sequence[Message]) -> Any:
    """What both outputs of a pair answer."""
    others = [message for message in asked if message["role"] not in ("system", "developer")]
    text = others[0]["content"] if len(others) == 1 else None
    return text if isinstance(text, str) and text else others or None


def _usage(usage: _Record) -> Usage | None:
    return usage_of(count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")))


def _canonical(record: _Record) -> str:
    return msgspec.json.encode(record, order="sorted").decode()
