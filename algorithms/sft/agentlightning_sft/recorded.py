"""What deployed agents were recorded to say → rows in which that is trained.

The text is what is learned, rendered by the policy's own chat template: whatever model wrote it, and whether or not its
tokens are known. No log-probability is needed for cross-entropy, and none is made up.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from agentlightning.errors import AlgorithmError, DataError
from agentlightning.recording import matches
from agentlightning.records import Span
from agentlightning.store.base import Recorded
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.protocol import ApiError
from agentlightning_sft.demonstrations import Demonstration, render

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]


class RecordedChat(msgspec.Struct):
    """A chat with the model, as far as one rollout took it; ``answers`` are the places of the messages that the model
    wrote in it. Those of earlier turns, which the agent was given, are not among them."""

    messages: Messages
    tools: list[dict[str, Any]]
    answers: set[int]


def rows_of_recorded(
    recorded: Sequence[Recorded], chat: Chat, *, policy: str, agents: Sequence[str]
) -> list[TrainingRow]:
    """The rows of what the agents of these name patterns wrote in each rollout.

    A rollout that the chat template cannot show is left out, and said. Raises `AlgorithmError` where none is left.
    """
    rows: list[TrainingRow] = []
    left_out: list[str] = []
    for one in recorded:
        try:
            for found in chats_of(one.spans, agents):
                demonstration = msgspec.convert({"messages": found.messages, "tools": found.tools}, Demonstration)
                rows += render(demonstration, chat, one.rollout.id, policy=policy, learned=found.answers)
        except (ApiError, DataError, msgspec.ValidationError) as error:
            left_out.append(f"rollout {one.rollout.id}: {error}")
    if left_out:
        logger.warning("%d of %d recorded rollouts are left out: %s", len(left_out), len(recorded), left_out[0])
    if not rows:
        why = left_out[0] if left_out else f"in none did an agent of the names {', '.join(agents)} get a whole answer"
        raise AlgorithmError(f"nothing to learn from in {len(recorded)} recorded rollouts: {why}")
    return rows


def chats_of(spans: Sequence[Span], agents: Sequence[str]) -> list[RecordedChat]:
    """The chats in a rollout: a call that goes on from what an earlier one was asked and answered is one with it.

    A call that failed, or whose answer was cut off at its length, teaches nothing.
    """
    chats: list[RecordedChat] = []
    for span in spans:
        generation = span.generation
        if span.kind != "llm" or generation is None or generation.response is None or not matches(span.agent, agents):
            continue
        if span.failure is not None or generation.finish_reason == "length" or not generation.messages:
            continue
        answered = [*generation.messages, {**generation.response, "role": "assistant"}]
        before = next((one for one in chats if _goes_on(one.messages, generation.messages)), None)
        answers = {len(generation.messages)}
        if before is not None:
            answers |= before.answers
            chats.remove(before)
        chats.append(RecordedChat(answered, generation.tools, answers))
    return chats


def _goes_on(earlier: Messages, later: Messages) -> bool:
    return len(earlier) <= len(later) and list(map(_said, earlier)) == list(map(_said, later[: len(earlier)]))


def _said(message: dict[str, Any]) -> tuple[Any, ...]:
    """What a message says, whatever else a framework leaves out or adds when it sends it again."""
    calls = [(call.get("function") or {}) for call in message.get("tool_calls") or ()]
    return (
        message.get("role"),
        message.get("content") or "",
        [(function.get("name"), function.get("arguments")) for function in calls],
    )
