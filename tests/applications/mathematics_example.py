"""A copy of examples/mathematics, its modules, and what its reward says of an answer."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from agentlightning.plugins import plugins
from agentlightning.records import Rollout, Task

FOLDER = Path(__file__).parents[2] / "examples" / "mathematics"
GENERATED = shutil.ignore_patterns("runs", "data", "__pycache__", "*.jsonl")
MODULES = ("agent", "calculator", "problems", "reward", "tasks")


def copy(folder: Path) -> Path:
    """A copy of the example, as it is in the repository."""
    return Path(shutil.copytree(FOLDER, folder, ignore=GENERATED))


def write_tasks(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python tasks.py`` in a copy."""
    command = [sys.executable, "tasks.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def load(*names: str, folder: Path = FOLDER) -> list[ModuleType]:
    """Modules of the example, which import one another. They leave no name behind: other examples have the same."""
    others = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(others)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rollout(output: Any = None) -> Rollout:
    return Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)


def numeric_match(said: str, expected: str) -> float | None:
    """What the reward of the configs says of an answer."""
    reward: Any = plugins().find("rewards", "numeric_match")
    value: float | None = reward(reward.Config())(rollout(said), Task(id="t", input="?", expected=expected))
    return value
