"""Demonstrations: which tokens of a chat are learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from agentlightning.data import batch_of_step
from agentlightning.errors import DataError
from agentlightning_gateway.chat import Chat
from agentlightning_gateway.protocol import Message
from agentlightning_sft.demonstrations import load_demonstrations

CALL = {"id": "1", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "3 + 4"}'}}
TOOLS = [{"type": "function", "function": {"name": "calculator", "parameters": {}}}]
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "3 + 4?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "7", "tool_call_id": "1"},
    {"role": "assistant", "content": "The answer is 7."},
]


@pytest.fixture
def chat(tiny_model: Path) -> Chat:
    return Chat(AutoTokenizer.from_pretrained(tiny_model), ())


def written(path: Path, *chats: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(chat) for chat in chats))
    return path


def test_only_what_the_assistant_wrote_is_learned_with_the_end_of_its_turn(chat: Chat, tmp_path: Path) -> None:
    (row,) = load_demonstrations(
        written(tmp_path / "a.jsonl", {"messages": CHAT, "tools": TOOLS}), chat, policy="policy"
    )
    edges = np.flatnonzero(np.diff(row.mask.astype(int)))
    parts = ["".join(chat.token_text(int(token)) for token in part) for part in np.split(row.token_ids, edges + 1)]
    learned = parts[1::2] if not row.mask[0] else parts[::2]
    assert learned == [
        '<tool_call>\n{"name": "calculator", "arguments": {"expression": "3 + 4"}}\n</tool_call><|im_end|>',
        "The answer is 7.<|im_end|>",
    ]
    assert "".join(parts).startswith("<|im_start|>system")


def test_the_prompt_is_the_one_the_engine_would_give(chat: Chat, tmp_path: Path) -> None:
    (row,) = load_demonstrations(
        written(tmp_path / "a.jsonl", {"messages": [*CHAT[:2], CHAT[4]]}), chat, policy="policy"
    )
    prompt = chat.encode(chat.render([Message(role=m["role"], content=m["content"]) for m in CHAT[:2]], None))
    assert row.token_ids[: int(np.flatnonzero(row.mask)[0])].tolist() == prompt


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no demonstration in it"),
        ("{nonsense", r"a.jsonl:1: not a chat"),
        ('\n{"messages": [{"role": "robot"}]}', r"a.jsonl:2: not a chat"),
        ('{"messages": [{"role": "user", "content": "a"}]}', r"a.jsonl:1: expected an assistant message"),
    ],
)
def test_a_bad_file_is_named_with_its_line(chat: Chat, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        load_demonstrations(tmp_path / "a.jsonl", chat, policy="policy")


def test_a_missing_file_is_named(chat: Chat) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl cannot be read"):
        load_demonstrations("nowhere.jsonl", chat, policy="policy")


def test_each_epoch_shows_every_demonstration_once(chat: Chat, tmp_path: Path) -> None:
    chats = [{"messages": [CHAT[1], {"role": "assistant", "content": str(number)}]} for number in range(6)]
    rows = load_demonstrations(written(tmp_path / "a.jsonl", *chats), chat, policy="policy")
    first, second = (
        [row.rollout_id for step in epoch for row in batch_of_step(rows, 2, step, 0)]
        for epoch in ((1, 2, 3), (4, 5, 6))
    )
    assert sorted(first) == sorted(second) == sorted(row.rollout_id for row in rows)
    assert first != second
