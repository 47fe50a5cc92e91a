"""The calls of an agent's turn: which tools its model called, which of them ran, and to whom it hands over. Agents of
AgentChat report them; those of the core API do not."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from autogen_agentchat.base import Response
from autogen_agentchat.messages import HandoffMessage, ToolCallExecutionEvent, ToolCallRequestEvent

from agentlightning import semconv
from agentlightning.adapterkit.attributes import parse_arguments, tool_attributes
from agentlightning.recording import Recorder
from agentlightning.records import Failure, Span
from agentlightning_autogen import internals


class Turn:
    """The events and messages that an agent yields while it answers.

    Tools that AutoGen runs by itself are recorded as they run; those of a workbench that runs elsewhere (MCP), and
    calls that fail before any tool runs, when the agent yields their results.
    """

    def __init__(self, recorder: Recorder, agent: Any, span: Span) -> None:
        self._recorder = recorder
        self._agent = agent.name
        self._span = span
        self._handoffs = internals.handoffs(agent)
        self._seen: set[str] = set()
        self._called: dict[str, tuple[Any, float]] = {}
        self._ran: Counter[str | None] = Counter()
        self._handoff_id: str | None = None
        self._target: str | None = None

    def tool_begins(self, call_id: str | None) -> str | None:
        """A tool begins to run. Returns the agent that it hands over to, if it does."""
        self._ran[call_id] += 1
        return self._target if call_id is not None and call_id == self._handoff_id else None

    def read(self, item: Any) -> None:
        """Takes an event, message or response of the agent's, once."""
        if isinstance(item, Response):
            for inner in item.inner_messages or ():
                self.read(inner)
            item = item.chat_message
        kind: Any = type(item)
        take = _reader(kind)
        if take is None or item.source != self._agent or item.id in self._seen:
            return
        self._seen.add(item.id)
        take(self, item)

    def _request(self, event: ToolCallRequestEvent) -> None:
        self._called = {call.id: (call, time.time()) for call in event.content}
        handoff = next((call for call in event.content if call.name in self._handoffs), None)
        if handoff is not None:
            self._handoff_id, self._target = handoff.id, self._handoffs[handoff.name].target

    def _hand_over(self, message: HandoffMessage) -> None:
        if message.target != self._target:
            attributes = {semconv.AGENT_NAME: message.target}
            span = self._recorder.start("handoff", message.target, parent=self._span, attributes=attributes)
            self._recorder.end(span)

    def _results(self, event: ToolCallExecutionEvent) -> None:
        for result in event.content:
            if self._ran[result.call_id] > 0:
                self._ran[result.call_id] -= 1
                continue
            call, called_at = self._called.get(result.call_id, (None, time.time()))
            arguments = parse_arguments(call.arguments) if call is not None else None
            attributes = tool_attributes(result.name, result.call_id, arguments)
            attributes[semconv.TOOL_CALL_RESULT] = result.content
            span = self._recorder.start("tool", result.name, parent=self._span, attributes=attributes)
            span.started_at = called_at
            failed = Failure(type="tool_error", message=result.content) if result.is_error else None
            self._recorder.end(span, failed)


READERS: dict[type, Callable[[Turn, Any], None]] = {
    ToolCallRequestEvent: Turn._request,
    ToolCallExecutionEvent: Turn._results,
    HandoffMessage: Turn._hand_over,
}


@functools.cache
def _reader(kind: Any) -> Callable[[Turn, Any], None] | None:
    return next((take for known, take in READERS.items() if issubclass(kind, known)), None)
