"""Rollouts as they are recorded, span by span, for the tests of what is read out of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Rollout, Span, Task
from agentlightning_intermediate.signals import Occurrence, SignalOptions, occurrences
from agentlightning_intermediate.trace import Trace

TASK = Task(id="t", input="How many?")


def a_rollout(**fields: Any) -> Rollout:
    return Rollout(
        **{"id": "r", "run_id": "run", "group_id": "g", "task_id": "t", "purpose": "train", "step": 1} | fields
    )


def call(name: str, arguments: Any = None, id: str | None = None) -> dict[str, Any]:
    """A tool call as an answer holds it; ``arguments`` are written as JSON where they are no text."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
    return {"id": id or f"call_{name}", "type": "function", "function": {"name": name, "arguments": text}}


class Recording:
    """Spans, one after the other: each begins a second after the one before, which has ended, unless told otherwise."""

    def __init__(self, rollout_id: str = "r") -> None:
        self.rollout_id = rollout_id
        self.spans: list[Span] = []
        self._tokens: list[int] = [1]

    def answer(
        self,
        content: Any = "",
        *calls: Any,
        agent: str | None = "agent",
        policy: str | None = "policy",
        finish_reason: str | None = "stop",
        **fields: Any,
    ) -> Span:
        """A call of the policy, answered with exact tokens; its prompt extends the last, and holds what tools said."""
        written = [100 + len(self._tokens), 101 + len(self._tokens)]
        response = {"role": "assistant", "content": content} | ({"tool_calls": list(calls)} if calls else {})
        generation = Generation(
            messages=[{"role": "user", "content": "How many?"}],
            response=response,
            finish_reason=finish_reason,
            provenance="exact",
            prompt_ids=np.array(self._tokens, np.int32),
            response_ids=np.array(written, np.int32),
            logprobs=np.full(2, -0.5, np.float32),
            policy=policy,
            policy_version=0,
        )
        self._tokens += [*written, 7]
        return self.add("llm", "chat tiny", agent=agent, generation=generation, **fields)

    def tool(
        self,
        name: str,
        *,
        id: str | None = None,
        arguments: Any = None,
        fails: str | Failure | None = None,
        agent: str | None = "agent",
        **fields: Any,
    ) -> Span:
        """A tool's run. ``result`` is among its attributes only where it is given."""
        attributes = {semconv.TOOL_NAME: name}
        if id is not None:
            attributes[semconv.TOOL_CALL_ID] = id
        if arguments is not None:
            attributes[semconv.TOOL_CALL_ARGUMENTS] = arguments
        if "result" in fields:
            attributes[semconv.TOOL_CALL_RESULT] = fields.pop("result")
        failure = Failure(type="tool_error", message=fails) if isinstance(fails, str) else fails
        self._tokens.append(8 if failure is None else 9)
        return self.add("tool", name, agent=agent, attributes=attributes, failure=failure, **fields)

    def retrieval(self, documents: Any, query: str = "apples", **fields: Any) -> Span:
        attributes = {semconv.RETRIEVAL_QUERY: query, semconv.RETRIEVAL_DOCUMENTS: documents}
        return self.add("retrieval", "retriever", attributes=attributes, **fields)

    def handoff(self, source: str, target: str, **fields: Any) -> Span:
        return self.add("handoff", target, agent=source, attributes={semconv.AGENT_NAME: target}, **fields)

    def add(self, kind: Any, name: str, **fields: Any) -> Span:
        index = len(self.spans)
        usual = {"id": f"{self.rollout_id}-{index}", "started_at": float(index), "ended_at": index + 0.5}
        span = Span(rollout_id=self.rollout_id, index=index, kind=kind, name=name, **(usual | fields))
        self.spans.append(span)
        return span

    def found(self, signal: str, output: Any = None, **options: Any) -> list[Occurrence]:
        """Every occurrence of a signal."""
        return occurrences(signal, Trace(a_rollout(output=output), self.spans), SignalOptions(**options))

    def blamed(self, signal: str, output: Any = None, **options: Any) -> list[int]:
        """The index of the answer that caused each occurrence of a signal."""
        return [one.answer.index for one in self.found(signal, output, **options)]
