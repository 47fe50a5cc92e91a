"""Demonstrations: JSONL of chats → rows in which the assistant's tokens are trained.

Nobody sampled these tokens, so there are no log-probabilities, and cross-entropy is all that can be made of
them. Each answer is rendered the way the engine would have asked for it: the prompt up to where the
assistant begins to write, then what it wrote, up to and with the token that ends its turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentlightning.errors import DataError
from agentlightning.training_rows import TrainingRow
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.protocol import ApiError, Message


class Demonstration(msgspec.Struct, kw_only=True):
    """One chat in the shape of the OpenAI API. Every assistant message is learned."""

    messages: list[Message]
    tools: list[dict[str, Any]] = []


def load_demonstrations(path: str | Path, chat: Chat, *, policy: str) -> list[TrainingRow]:
    """The rows of every chat in the file.

    Raises `DataError`, with file and line, for what is no chat, and for an empty file.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"algorithm.demonstrations: {path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            demonstration = msgspec.json.decode(line, type=Demonstration)
            rows += render(demonstration, chat, where, policy=policy)
        except (msgspec.DecodeError, ApiError) as error:
            raise DataError(f'{where}: not a chat ({{"messages": [{{"role": …, "content": …}}]}}): {error}') from error
    if not rows:
        raise DataError(f"{path}: there is no demonstration in it")
    return rows


def render(
    demonstration: Demonstration, chat: Chat, where: str, *, policy: str, learned: set[int] | None = None
) -> list[TrainingRow]:
    """The rows of a chat: one, unless its template shows earlier answers otherwise than they were written
    (reasoning cut out, say), which begins a new row for each such answer. Every answer is learned, or those at the
    places ``learned``."""
    answers = [
        index
        for index, message in enumerate(demonstration.messages)
        if message.role == "assistant" and (learned is None or index in learned)
    ]
    if not answers or answers[0] == 0:
        raise DataError(f"{where}: expected an assistant message after another message")
    rows: list[_Row] = []
    for index in answers:
        prompt = chat.render(demonstration.messages[:index], demonstration.tools)
        whole = chat.render(demonstration.messages[: index + 1], demonstration.tools, answer=False)
        if not whole.startswith(prompt):
            raise DataError(
                f"{where}: message {index + 1}: the chat template shows the answer elsewhere than where it asks for it"
            )
        if not rows or not prompt.startswith(rows[-1].text):
            rows.append(_Row())
        rows[-1].add(prompt, whole, chat)
    return [row.training_row(where, policy) for row in rows]


class _Row:
    """A row in the making: ``text`` is what its tokens say so far."""

    def __init__(self) -> None:
        self.text = ""
        self._ids: list[int] = []
        self._mask: list[bool] = []

    def add(self, prompt: str, whole: str, chat: Chat) -> None:
        prompt_ids = chat.encode(prompt[len(self.text) :])
        answer = chat.encode(whole[len(prompt) :])
        ends = [index for index, token in enumerate(answer) if token in chat.end_ids]
        written = ends[-1] + 1 if ends else len(answer)
        self._ids += prompt_ids + answer
        self._mask += [False] * len(prompt_ids) + [index < written for index in range(len(answer))]
        self.text = whole

    def training_row(self, where: str, policy: str) -> TrainingRow:
        return TrainingRow(
            rollout_id=where,
            policy=policy,
            token_ids=np.array(self._ids, np.int32),
            mask=np.array(self._mask, np.bool_),
            logprobs=np.zeros(len(self._ids), np.float32),
            advantages=np.array(self._mask, np.float32),
        )
