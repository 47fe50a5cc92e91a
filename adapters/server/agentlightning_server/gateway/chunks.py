"""What most of a stream of chat completions is: chunks that say a piece of text with its tokens, and nothing else.

A stream has one for each token. They are read into structs, not dictionaries, and a row of them is joined as one.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from agentlightning_openai.stream import Joiner


class _Token(msgspec.Struct):
    logprob: Any


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Delta(msgspec.Struct, forbid_unknown_fields=True):
    content: str
    role: str | UnsetType | None = UNSET


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    index: int
    delta: _Delta
    logprobs: _Logprobs | UnsetType | None = UNSET
    finish_reason: UnsetType | None = UNSET
    stop_reason: UnsetType | None = UNSET
    token_ids: list[int] | UnsetType | None = UNSET


class _Chunk(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    object: str
    created: int
    model: str
    choices: tuple[_Choice]
    system_fingerprint: str | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET


_decoder = msgspec.json.Decoder(_Chunk)


class TextChunks:
    """Rows of such chunks, on their way to a joiner, for a client that asked for no tokens."""

    def __init__(self, joiner: Joiner) -> None:
        self._joiner = joiner
        self._row: list[_Chunk] = []

    def take(self, data: bytes) -> bytes | None:
        """Takes a chunk; what of it is for the client. None where it is of another kind, and not taken."""
        try:
            chunk = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        choice = chunk.choices[0]
        if self._row and self._row[0].choices[0].index != choice.index:
            self.join()
        self._row.append(chunk)
        has_logprobs = choice.logprobs is not UNSET
        shown = _Choice(choice.index, choice.delta, None if has_logprobs else UNSET, choice.finish_reason)
        shown.stop_reason = choice.stop_reason
        return msgspec.json.encode(msgspec.structs.replace(chunk, choices=(shown,)))

    def join(self) -> None:
        """Hands the joiner what has been taken since, as one chunk."""
        if not self._row:
            return
        last, choices = self._row[-1], [chunk.choices[0] for chunk in self._row]
        ids = [choice.token_ids for choice in choices if isinstance(choice.token_ids, list)]
        tokens = [it.logprobs.content for it in choices if isinstance(it.logprobs, _Logprobs) and it.logprobs.content]
        roles = [choice.delta.role for choice in choices if isinstance(choice.delta.role, str)]
        row = {
            "index": choices[0].index,
            "delta": {"role": roles[0] if roles else None, "content": "".join([it.delta.content for it in choices])},
            "token_ids": [id for some in ids for id in some] if ids else None,
            "logprobs": {"content": [token for some in tokens for token in some]} if tokens else None,
        }
        self._row = []
        self._joiner.add({"id": last.id, "model": last.model, "choices": [row]})
