"""Conversations out of rollouts that can be shown to a model: whole, without what the agent says every time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentlightning import semconv
from agentlightning.chats import RecordedChat, chats_of, said
from agentlightning.errors import DataError
from agentlightning.records import Record, Rollout, Span
from agentlightning.step_rewards import step_rewards
from agentlightning.system_prompts import SYSTEM_ROLES, text_of
from agentlightning_prompt.roles import Observed, Role

logger = logging.getLogger(__name__)

Messages = list[dict[str, Any]]

BY_HAND = "by hand"
"""The task of a demonstration that somebody wrote."""
_KEPT = ("role", "content", "name", "tool_calls", "tool_call_id")
_ANY = ("*",)


class Demonstration(Record, kw_only=True):
    """A conversation, without system messages, of the role of this name.

    ``outcome`` is that of its rollout, None where that has none; ``step_reward`` the mean reward of its own calls, None
    where they got none. ``source`` is the rollout, or the line of a file.
    """

    role: str
    messages: Messages
    task_id: str = BY_HAND
    outcome: float | None = None
    step_reward: float | None = None
    source: str

    @property
    def characters(self) -> int:
        """How long it is, calls of tools included."""
        return sum(len(text) for message in self.messages for text in _texts(message))

    @property
    def is_by_hand(self) -> bool:
        return self.task_id == BY_HAND

    @property
    def words(self) -> frozenset[str]:
        """The words of what is asked in it."""
        asked = (text_of(message.get("content")) for message in self.messages if message["role"] == "user")
        return frozenset(word for text in asked for word in (text or "").lower().split())

    @property
    def identity(self) -> str:
        """The same for those that say the same."""
        return repr([said(message) for message in self.messages])


class Reader:
    """Reads demonstrations out of rollouts.

    ``never_shown`` are inputs of tasks that are validated or held out: what asks one of them is no demonstration.
    ``left_out`` counts why conversations are none.
    """

    def __init__(self, roles: Sequence[Role], *, max_characters: int, never_shown: Iterable[Any] = ()) -> None:
        self.left_out: Counter[str] = Counter()
        self._roles = list(roles)
        self._max_characters = max_characters
        self._never_shown = {one.strip() for one in never_shown if isinstance(one, str)}
        self._said_always: dict[str, int] = {}

    def learn_what_is_said_always(self, observed: Sequence[Observed]) -> None:
        """Finds the messages that every conversation of a role begins with: examples of the agent's own, which it goes
        on to send. The rollouts ran without demonstrations."""
        for role in self._roles:
            chats: dict[str, list[RecordedChat]] = {}
            for rollout, spans in observed:
                chats.setdefault(rollout.task_id, []).extend(chats_of(self._calls(role, spans), _ANY))
            found = [(task, one) for task, several in chats.items() for one in several]
            if len({task for task, _ in found}) > 1:
                begun = [_without_system(one.messages[: min(one.answers)]) for _, one in found]
                self._said_always[role.name] = min(_common(begun), min(map(len, begun)) - 1)

    def read(
        self, rollout: Rollout, spans: Sequence[Span], *, shown: Mapping[str, Sequence[Messages]] | None = None
    ) -> list[Demonstration]:
        """The demonstrations in a rollout, by role. It ran with those that are ``shown``, by role, which are no part
        of them."""
        found = []
        answered = [span for span in spans if span.generation is not None and span.generation.response is not None]
        earned = step_rewards(rollout, spans, answered)
        for role in self._roles:
            given = [message for one in (shown or {}).get(role.name, ()) for message in one]
            for chat in chats_of(self._calls(role, spans), _ANY):
                messages = self._conversation(role, chat, spans, given)
                if isinstance(messages, str):
                    self.left_out[messages] += 1
                    continue
                own = [earned[id] for id in chat.span_ids if id in earned]
                found.append(
                    Demonstration(
                        role=role.name,
                        messages=messages,
                        task_id=rollout.task_id,
                        outcome=rollout.outcome if rollout.is_scorable else None,
                        step_reward=sum(own) / len(chat.span_ids) if own else None,
                        source=rollout.id,
                    )
                )
        return found

    def by_hand(self, path: str) -> list[Demonstration]:
        """Those of a JSONL file of ``{"messages": […], "agent": …}``: of the role or agent of that name, of every role
        where none is given. What a validation or held-out task asks is left out, and told. Raises `DataError` with file
        and line."""
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"algorithm.labelled: {path} cannot be read: {error}") from error
        written = [
            one
            for number, line in enumerate(lines, 1)
            if line.strip()
            for one in self._of_line(line, f"{path}:{number}")
        ]
        found = [one for one in written if not self._asks_what_is_measured(one.messages)]
        if len(found) < len(written):
            logger.warning(
                "%s: %d of %d demonstrations are left out, as validation or held-out tasks ask the same",
                *(path, len(written) - len(found), len(written)),
            )
        if not found:
            raise DataError(f"algorithm.labelled: there is no demonstration in {path} that can be shown")
        return found

    def _of_line(self, line: str, where: str) -> list[Demonstration]:
        try:
            written = msgspec.json.decode(line, type=_Written)
        except msgspec.DecodeError as error:
            raise DataError(f'{where}: not a chat ({{"messages": [{{"role": …, "content": …}}]}}): {error}') from error
        roles = [role for role in self._roles if written.agent in (None, role.name, role.agent)]
        if not roles:
            there = ", ".join(role.name for role in self._roles)
            raise DataError(f"{where}: the agent has no role {written.agent!r}; there is {there}")
        messages = _without_system(written.messages)
        wrong = _unlike_a_demonstration(messages) or self._too_long(messages)
        if wrong is not None:
            raise DataError(f"{where}: this cannot be shown: {wrong}")
        return [Demonstration(role=role.name, messages=messages, source=where) for role in roles]

    def _calls(self, role: Role, spans: Sequence[Span]) -> list[Span]:
        """A role's calls. Where its agent has no other, an earlier system prompt may stand in them; where there is no
        other at all, another name."""
        if role.only:
            return [span for span in spans if span.kind == "llm"]
        alone = sum(other.agent == role.agent for other in self._roles) == 1
        return [span for span in spans if role.has(span) or (alone and span.kind == "llm" and span.agent == role.agent)]

    def _conversation(self, role: Role, chat: RecordedChat, spans: Sequence[Span], given: Messages) -> Messages | str:
        """What can be shown of a chat; or why nothing can."""
        if not chat.whole:
            return "it broke off: a call failed, or an answer was cut off"
        messages = _without_system(chat.messages)
        if given and [said(one) for one in messages[: len(given)]] != [said(one) for one in given]:
            return "its demonstrations cannot be told from what follows"
        messages = messages[len(given) + self._said_always.get(role.name, 0) :]
        if _has_failed_tool(messages, spans):
            return "a tool failed in it"
        messages = _with_last_results(messages, spans)
        wrong = _unlike_a_demonstration(messages) or self._too_long(messages)
        if wrong is None and self._asks_what_is_measured(messages):
            wrong = "it asks what a validation or held-out task asks"
        return wrong or messages

    def _too_long(self, messages: Messages) -> str | None:
        if sum(len(text) for message in messages for text in _texts(message)) > self._max_characters:
            return f"it is longer than max_demonstration_characters, {self._max_characters}"
        return None

    def _asks_what_is_measured(self, messages: Messages) -> bool:
        asked = {(text_of(one.get("content")) or "").strip() for one in messages if one["role"] == "user"}
        return not asked.isdisjoint(self._never_shown)


class _Written(msgspec.Struct):
    messages: Messages
    agent: str | None = None


def _without_system(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """The messages of a conversation, each with what the API takes and no more."""
    return [
        {"content": None, **{name: message[name] for name in _KEPT if message.get(name) is not None}}
        for message in messages
        if message.get("role") not in SYSTEM_ROLES
    ]


def _unlike_a_demonstration(messages: Messages) -> str | None:
    """Why a conversation shows nothing."""
    if not messages or messages[0].get("role") != "user":
        return "it begins with no user's message: what is asked stands in the system prompt, or nowhere"
    answers = [message for message in messages if message.get("role") == "assistant"]
    if not answers or not any(text.strip() for text in _texts(answers[-1])):
        return "nobody answers in it"
    answered = {message.get("tool_call_id") for message in messages if message.get("role") == "tool"}
    if any(call.get("id") not in answered for message in messages for call in message.get("tool_calls") or ()):
        return "a tool is called in it, and no result follows"
    return None


def _has_failed_tool(messages: Messages, spans: Sequence[Span]) -> bool:
    calls = {call.get("id") for message in messages for call in message.get("tool_calls") or ()}
    failed = [span.attributes.get(semconv.TOOL_CALL_ID) for span in spans if span.kind == "tool" and span.failure]
    return len(calls) > 0 and any(id is None or id in calls for id in failed)


def _with_last_results(messages: Messages, spans: Sequence[Span]) -> Messages:
    """The messages with the results of tools that the last of them calls: some agents end with these."""
    calls = [call.get("id") for message in messages[-1:] for call in message.get("tool_calls") or ()]
    results = {span.attributes.get(semconv.TOOL_CALL_ID): span for span in spans if span.kind == "tool"}
    if not calls or any(id not in results for id in calls):
        return messages
    return [
        *messages,
        *(
            {"role": "tool", "tool_call_id": id, "content": str(results[id].attributes.get(semconv.TOOL_CALL_RESULT))}
            for id in calls
        ),
    ]


def _texts(message: Mapping[str, Any]) -> list[str]:
    calls = [(call.get("function") or {}) for call in message.get("tool_calls") or ()]
    named = [f"{function.get('name')}{function.get('arguments')}" for function in calls]
    return [text_of(message.get("content")) or "", *named]


def _common(conversations: Sequence[Messages]) -> int:
    """How many messages all of them begin with."""
    count = 0
    for together in zip(*conversations, strict=False):
        if any(said(message) != said(together[0]) for message in together):
            break
        count += 1
    return count
