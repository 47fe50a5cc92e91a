"""What most of a stream of chat completions is: chunks that say a piece of text with its tokens, and nothing else.

A stream has one for each token. They are read into structs, not dictionaries, and a row of them is joined as one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from agentlightning_openai.stream import Joiner

T = TypeVar("T")


class _Token(msgspec.Struct, gc=False):
    logprob: Any


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_Token] | None = None


class _Delta(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str | UnsetType | None = UNSET


class _Choice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    index: int
    delta: _Delta
    logprobs: _Logprobs | UnsetType | None = UNSET
    finish_reason: UnsetType | None = UNSET
    stop_reason: UnsetType | None = UNSET
    token_ids: list[int] | UnsetType | None = UNSET


class _Chunk(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    id: str
    object: str
    created: int
    model: str
    choices: tuple[_Choice]
    system_fingerprint: str | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET


_decode = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.Encoder().encode


class TextChunks:
    """Rows of such chunks, on their way to a joiner, for a client that asked for no tokens."""

    def __init__(self, joiner: Joiner) -> None:
        self._joiner = joiner
        self._last: _Chunk | None = None
        self._texts: list[str] = []
        self._role: str | None = None
        self._ids: list[int] | None = None
        self._tokens: list[_Token] | None = None

    def take(self, data: bytes) -> bytes | None:
        """Takes a chunk; what of it is for the client. None where it is of another kind, and not taken."""
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        choice = chunk.choices[0]
        if self._last is not None and self._last.choices[0].index != choice.index:
            self.join()
        self._last = chunk
        self._texts.append(choice.delta.content)
        self._role = self._role or choice.delta.role or None
        if choice.token_ids is not UNSET:
            self._ids = _longer(self._ids, choice.token_ids)
            choice.token_ids = UNSET
        if choice.logprobs is not UNSET:
            if choice.logprobs is not None and choice.logprobs.content:
                self._tokens = _longer(self._tokens, choice.logprobs.content)
            choice.logprobs = None
        return _encode(chunk)

    def join(self) -> None:
        """Hands the joiner what has been taken since, as one chunk."""
        if self._last is None:
            return
        row = {
            "index": self._last.choices[0].index,
            "delta": {"role": self._role, "content": "".join(self._texts)},
            "token_ids": self._ids,
            "logprobs": {"content": self._tokens} if self._tokens else None,
        }
        said = {"id": self._last.id, "model": self._last.model, "choices": [row]}
        self._last, self._texts, self._role, self._ids, self._tokens = None, [], None, None, None
        self._joiner.add(said)


def _longer(known: list[T] | None, more: list[T] | None) -> list[T] | None:
    if known is None or more is None:
        return more if known is None else known
    known += more
    return known
