"""Token in, token out: which messages of a rollout became which tokens.

A request whose messages extend an earlier request and its answer continues from those very tokens; only what
is new is rendered and tokenised. A request with the very messages of an earlier one gets its prompt again. Where
earlier messages were edited or dropped, the prompt is rendered anew. Every exchange is kept, so interleaved
agents and branches of one rollout each find their own.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning_policy.engine.chat import Chat
from agentlightning_policy.engine.protocol import Message, arguments_of

KEPT = 4096
"""Rollouts whose conversations are kept; the ones heard of longest ago go first."""

Key = tuple[str, ...]


@dataclass
class Prompt:
    """The tokens of a request. ``continued`` says whether they extend or repeat earlier ones; ``repeat``
    counts the earlier requests of the rollout with the very same tokens."""

    ids: np.ndarray
    continued: bool
    repeat: int
    rollout: str | None
    key: Key


@dataclass
class _Session:
    prompts: dict[Key, np.ndarray] = field(default_factory=dict)
    answered: dict[Key, np.ndarray] = field(default_factory=dict)
    asked: dict[bytes, int] = field(default_factory=dict)

    def times_asked(self, ids: np.ndarray) -> int:
        """How often these tokens were asked before; counts this time."""
        before = self.asked.get(ids.tobytes(), 0)
        self.asked[ids.tobytes()] = before + 1
        return before


class Sessions:
    """The conversations of the rollouts that are running. For use from one thread."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def prompt(self, rollout: str | None, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> Prompt:
        """The tokens of a request; without a rollout they are always rendered anew."""
        key = _key(messages, tools)
        session = self._session(rollout)
        ids = session.prompts.get(key)
        if ids is None:
            ids = self._extended(session, key, messages, tools)
        continued = ids is not None
        if ids is None:
            ids = np.array(self._chat.encode(self._chat.render(messages, tools)), np.int32)
        session.prompts[key] = ids
        return Prompt(ids, continued, session.times_asked(ids), rollout, key)

    def plain(self, rollout: str | None, ids: np.ndarray) -> Prompt:
        """A prompt that is no chat: its tokens as they are."""
        return Prompt(ids, False, self._session(rollout).times_asked(ids), rollout, ())

    def answered(self, prompt: Prompt, message: Message, ids: Sequence[int]) -> None:
        """Keeps an answer: ``message`` is how the agent will see it, ``ids`` what was sampled."""
        session = self._session(prompt.rollout)
        session.answered[(*prompt.key, _message_key(message))] = np.concatenate([prompt.ids, np.array(ids, np.int32)])

    def _session(self, rollout: str | None) -> _Session:
        if rollout is None:
            return _Session()
        session = self._sessions.setdefault(rollout, _Session())
        self._sessions.move_to_end(rollout)
        if len(self._sessions) > KEPT:
            self._sessions.popitem(last=False)
        return session

    def _extended(
        self, session: _Session, key: Key, messages: Sequence[Message], tools: list[dict[str, Any]] | None
    ) -> np.ndarray | None:
        for size in range(len(messages) - 1, 0, -1):
            before = session.answered.get(key[: size + 1])
            if before is None:
                continue
            new = self._chat.continuation(messages[:size], messages[size:], tools, int(before[-1]))
            if new is not None:
                return np.concatenate([before, np.array(new, np.int32)])
        return None


def _key(messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> Key:
    return (json.dumps(tools or [], sort_keys=True), *map(_message_key, messages))


def _message_key(message: Message) -> str:
    """What of a message matters to the model. Frameworks give an answer back with white space trimmed,
    arguments in another order, a name of their own: that is the same answer."""
    if message.role != "assistant":
        return json.dumps([message.role, message.text, message.name, message.tool_call_id])
    calls = [[call.id, call.function.name, arguments_of(call)] for call in message.tool_calls or []]
    return json.dumps([message.role, message.text.strip(), calls], sort_keys=True)
