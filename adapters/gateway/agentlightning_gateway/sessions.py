"""Token in, token out: which messages of a rollout became which tokens.

A request whose messages extend an earlier request and its answer continues from those very tokens; only what
is new is rendered and tokenised. A request with the very messages of an earlier one gets its prompt again. Where
earlier messages were edited or dropped, the prompt is rendered anew. Every exchange is kept, so interleaved
agents and branches of one rollout each find their own.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentlightning_gateway.chat import BYTES_PER_TOKEN, Chat
from agentlightning_gateway.protocol import ApiError, Message, arguments_of

KEPT_TOKENS = 2**25
"""Tokens of conversations that are kept (128 MiB); the rollouts heard of longest ago go first."""
OVERHEAD = 128
"""What an exchange takes beside its tokens, in tokens."""

Key = bytes
"""A digest of the tools, the template's variables and all messages up to one."""


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
    asked: dict[Key, int] = field(default_factory=dict)
    tokens: int = 0


class Sessions:
    """The conversations of the rollouts that are running. Safe to use from several threads; a prompt longer than
    ``max_context`` can be is refused before it is tokenised."""

    def __init__(self, chat: Chat, max_context: int) -> None:
        self._chat = chat
        self._max_bytes = max_context * BYTES_PER_TOKEN
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._tokens = 0
        self._lock = threading.Lock()

    def prompt(
        self,
        rollout: str | None,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> Prompt:
        """The tokens of a request; without a rollout they are always rendered anew.

        Raises `ApiError` where the template refuses the messages, or they are too long.
        """
        keys = _keys(messages, tools, variables)
        session = self._session(rollout)
        ids = session.prompts.get(keys[-1])
        if ids is None:
            ids = self._extended(session, keys, messages, tools, variables)
        continued = ids is not None
        if ids is None:
            ids = np.array(self._encode(self._chat.render(messages, tools, variables)), np.int32)
        return self._asked(session, Prompt(ids, continued, 0, rollout, keys[-1]))

    def text(self, rollout: str | None, text: str, *, special: bool) -> Prompt:
        """A prompt that is no chat, with the tokens that the tokenizer adds where ``special``. Raises `ApiError`
        where it is too long."""
        return self.plain(rollout, self._encode(text, special=special))

    def plain(self, rollout: str | None, ids: Sequence[int]) -> Prompt:
        """A prompt that is no chat: its tokens as they are."""
        return self._asked(self._session(rollout), Prompt(np.array(ids, np.int32), False, 0, rollout, b""))

    def answered(self, prompt: Prompt, message: Message, ids: Sequence[int]) -> None:
        """Keeps an answer: ``message`` is how the agent will see it, ``ids`` what was sampled."""
        if prompt.rollout is None:
            return
        session = self._session(prompt.rollout)
        whole = np.concatenate([prompt.ids, np.array(ids, np.int32)])
        with self._lock:
            session.answered[_next(prompt.key, message)] = whole
            self._count(prompt.rollout, session, len(whole))

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        size = len(text.encode())
        if size > self._max_bytes:
            raise ApiError(
                400,
                f"the prompt is {size:,} bytes long, more than the context can hold ({self._max_bytes:,})",
                code="context_length_exceeded",
                param="messages",
            )
        return self._chat.encode(text, special=special)

    def _asked(self, session: _Session, prompt: Prompt) -> Prompt:
        key = _digest(prompt.ids.tobytes())
        with self._lock:
            prompt.repeat = session.asked.get(key, 0)
            session.asked[key] = prompt.repeat + 1
            if prompt.key:
                session.prompts[prompt.key] = prompt.ids
            if prompt.repeat == 0:
                self._count(prompt.rollout, session, len(prompt.ids))
        return prompt

    def _session(self, rollout: str | None) -> _Session:
        if rollout is None:
            return _Session()
        with self._lock:
            session = self._sessions.setdefault(rollout, _Session())
            self._sessions.move_to_end(rollout)
        return session

    def _count(self, rollout: str | None, session: _Session, tokens: int) -> None:
        if rollout is None or self._sessions.get(rollout) is not session:
            return
        session.tokens += tokens + OVERHEAD
        self._tokens += tokens + OVERHEAD
        while self._tokens > KEPT_TOKENS and len(self._sessions) > 1:
            _, oldest = self._sessions.popitem(last=False)
            self._tokens -= oldest.tokens

    def _extended(
        self,
        session: _Session,
        keys: Sequence[Key],
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        variables: Mapping[str, Any],
    ) -> np.ndarray | None:
        for size in range(len(messages) - 1, 0, -1):
            before = session.answered.get(keys[size])
            if before is None:
                continue
            new = self._chat.continuation(messages[:size], messages[size:], tools, variables, int(before[-1]))
            if new is not None:
                return np.concatenate([before, np.array(new, np.int32)])
        return None


def _keys(messages: Sequence[Message], tools: list[dict[str, Any]] | None, variables: Mapping[str, Any]) -> list[Key]:
    """The key of what comes before all messages, and of each message."""
    keys = [_digest(json.dumps([tools or [], variables], sort_keys=True).encode())]
    for message in messages:
        keys.append(_next(keys[-1], message))
    return keys


def _next(key: Key, message: Message) -> Key:
    return _digest(key + _content(message).encode())


def _content(message: Message) -> str:
    """What of a message matters to the model. Frameworks give an answer back with white space trimmed,
    arguments in another order, a name of their own: that is the same answer."""
    if message.role != "assistant":
        return json.dumps([message.role, message.text, message.name, message.tool_call_id])
    calls = [[call.id, call.function.name, arguments_of(call)] for call in message.tool_calls or []]
    return json.dumps([message.role, message.text.strip(), message.reasoning_content, calls], sort_keys=True)


def _digest(content: bytes) -> Key:
    return hashlib.blake2b(content, digest_size=16).digest()
