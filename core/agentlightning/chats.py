"""The chats with a model in a rollout: calls that go on from one another, put together. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentlightning.recording import matches
from agentlightning.records import Span

Messages = list[dict[str, Any]]


class RecordedChat(msgspec.Struct):
    """A chat with the model, as far as one rollout took it; ``answers`` are the places of the messages that the model
    wrote in it, and ``span_ids`` the calls. Those of earlier turns, which the agent was given, are not among them.

    ``whole`` says that no later call, which failed or whose answer was cut off, went on from it.
    """

    messages: Messages
    tools: list[dict[str, Any]]
    answers: set[int]
    span_ids: tuple[str, ...] = ()
    whole: bool = True


def chats_of(spans: Sequence[Span], agents: Sequence[str]) -> list[RecordedChat]:
    """The chats in a rollout: a call that goes on from what an earlier one was asked and answered is one with it.

    A call that failed, or whose answer was cut off at its length, teaches nothing.
    """
    chats: list[RecordedChat] = []
    for span in spans:
        generation = span.generation
        if span.kind != "llm" or generation is None or not generation.messages or not matches(span.agent, agents):
            continue
        before = next((one for one in chats if goes_on(one.messages, generation.messages)), None)
        if span.failure is not None or generation.response is None or generation.finish_reason == "length":
            if before is not None:
                before.whole = False
            continue
        answered = [*generation.messages, {**generation.response, "role": "assistant"}]
        chat = RecordedChat(answered, generation.tools, {len(generation.messages)}, (span.id,))
        if before is not None:
            chat.answers |= before.answers
            chat.span_ids = before.span_ids + chat.span_ids
            chats.remove(before)
        chats.append(chat)
    return chats


def goes_on(earlier: Sequence[Mapping[str, Any]], later: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a chat begins with all that another says."""
    return len(earlier) <= len(later) and list(map(said, earlier)) == list(map(said, later[: len(earlier)]))


def said(message: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a message says, whatever else a framework leaves out or adds when it sends it again."""
    calls = [(call.get("function") or {}) for call in message.get("tool_calls") or ()]
    return (
        message.get("role"),
        message.get("content") or "",
        [(function.get("name"), function.get("arguments")) for function in calls],
    )
