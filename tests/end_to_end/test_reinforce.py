"""The REINFORCE that core's README shows trains weights, and not only the bandit of tests/core."""

from __future__ import annotations

import re
from pathlib import Path

import openai
import pytest

from agentlightning import Trainer
from agentlightning.records import Rollout, Task

README = Path(__file__).parents[2] / "core" / "README.md"
TASKS = [{"id": str(number), "input": f"task {number}"} for number in range(4)]


def ask(question: str) -> str:
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        messages = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="any", messages=messages, max_tokens=12).choices[0].message.content


def share_of_vowels(rollout: Rollout, task: Task) -> float:
    return sum(letter in "aeiou" for letter in rollout.output) / max(len(rollout.output), 1)


def test_reinforce_makes_what_is_rewarded_likelier(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(\"\"\"REINFORCE.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "reinforce_of_weights.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = Trainer(
        ask,
        TASKS,
        share_of_vowels,
        {
            "name": "reinforce_of_weights:Reinforce",
            "model": {"path": str(tiny_model)},
            "steps": 6,
            "batch_tasks": 4,
            "group_size": 8,
            "lr": 0.01,
            "checkpoint_every": 0,
            "evaluate": {"samples": 8, "greedy": False},
        },
        held_out=TASKS,
        store=f"sqlite:///{tmp_path}/store.db",
        directory=tmp_path / "runs",
    ).fit()
    (sampled,) = result.comparisons
    assert sampled.after > sampled.before + 0.1
