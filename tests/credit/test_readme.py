"""The credit in the README is a whole plugin of a stranger's: it says what it should, and trains."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from credit.made import advantages, group, member, states

from agentlightning import PolicyGradient, Trainer
from agentlightning.records import Rollout, Task

README = Path(__file__).parents[2] / "algorithms" / "credit" / "README.md"
TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(4)]
CHOICE = {"name": "last_call:LastCall", "others": 0.5}


class Plain(PolicyGradient):
    """What the base does by itself."""


def ask(question: str) -> str | None:
    """Twice; the last answer counts."""
    asked: Any = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        client.chat.completions.create(model="any", messages=asked)
        return client.chat.completions.create(model="any", messages=asked).choices[0].message.content


def is_tails(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == "tails")


@pytest.fixture(autouse=True)
def last_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The README's file, where it can be imported."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 20
    (tmp_path / "last_call.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("last_call", None)


def test_it_works_by_its_name() -> None:
    one = group(member("a", states(0, 1, 2), 1.0), member("b", states(0), 0.0), member("c", [], 0.5))
    assert advantages(CHOICE, one) == [[0.25, 0.25, 0.5], [-0.5], []]


def test_it_trains(tmp_path: Path) -> None:
    section = {
        "name": f"{__name__}:Plain",
        "backend": "bandit:BanditBackend",
        "answers": ["heads", "tails"],
        "credit": CHOICE,
        "lr": 2.0,
        "steps": 3,
        "batch_tasks": 2,
        "group_size": 8,
        "checkpoint_every": 0,
    }
    places: Any = {"store": f"sqlite:///{tmp_path}/store.db", "directory": tmp_path / "runs"}
    result = Trainer(ask, TASKS, is_tails, section, held_out=TASKS[:1], name="bandit", **places).fit()
    heads, tails, version = np.load(Path(result.results["model"]) / "preferences.npy")
    assert version == 3
    assert tails > 0.2 > 0 > heads
