"""A copy of examples/text_to_sql, its modules, and rollouts to score."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from agentlightning.records import Rollout, Task

FOLDER = Path(__file__).parents[2] / "examples" / "text_to_sql"
GENERATED = shutil.ignore_patterns("runs", "data", "__pycache__", "train.jsonl", "held_out.jsonl")
MODULES = ("database", "prompts", "themes", "tasks", "reward", "agent")


def copy(folder: Path) -> Path:
    """A copy of the example, as it is in the repository."""
    return Path(shutil.copytree(FOLDER, folder, ignore=GENERATED))


def write_tasks(folder: Path, *arguments: str) -> str:
    """``python tasks.py`` in a copy; what it prints."""
    command = [sys.executable, "tasks.py", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def load(folder: Path, *names: str) -> list[ModuleType]:
    """Modules of a copy, which import one another. They leave no name behind, since other examples have the same."""
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


def rollout(output: Any) -> Rollout:
    return Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)


def task(database: str, gold: str) -> Task:
    return Task(id="t", input={"database": database, "question": "?"}, expected=gold)
