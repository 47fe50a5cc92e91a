"""Copies of the applications' examples: their tasks, their modules, and what was written of them."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from agentlightning.records import Rollout

EXAMPLES = Path(__file__).parents[2] / "examples"
GENERATED = shutil.ignore_patterns("runs", "data", "__pycache__", "*.jsonl")


def copy_of(name: str, folder: Path) -> Path:
    """A copy of an example, as it is in the repository."""
    return Path(shutil.copytree(EXAMPLES / name, folder, ignore=GENERATED))


def write_tasks(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python tasks.py`` in a copy."""
    command = [sys.executable, "tasks.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def load(folder: Path, *names: str) -> list[ModuleType]:
    """Modules of an example, which import one another. They leave no name behind: other examples have the same."""
    own = [path.stem for path in folder.glob("*.py")]
    others = {name: sys.modules.pop(name) for name in own if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))
        for name in own:
            sys.modules.pop(name, None)
        sys.modules.update(others)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rollout(output: Any = None) -> Rollout:
    return Rollout(id="r", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)
