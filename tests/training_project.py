"""A project that a server trains: an agent, a reward and an algorithm in a folder, and a config beside its tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CODE = '''
"""Learns nothing, and does everything that a run does. The agent may be told to wait, and by which pipe to say so."""
import os
import pathlib

import msgspec

from agentlightning.algorithm import Algorithm


def answer(number):
    if number == 2 and pathlib.Path("gate").exists():
        with open("reached", "w") as reached:  # pipes: each waits for the other side
            reached.write(str(os.getpid()))
        open("gate").read()
    print("my key is", os.environ.get("SOME_API_KEY"))
    return number * 2


def right(rollout, task):
    return float(rollout.output == task.expected)


class Options(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 3


class Steps(Algorithm):
    Config = Options

    async def run(self, run):
        first = run.restored.step + 1 if run.restored else 1
        if first == 1:
            await run.evaluate(step=0)
        for step in range(first, self.config.steps + 1):
            async for group in run.collect(run.tasks, group_size=2, step=step):
                pass
            run.log({"loss": 1.0 / step}, step=step)
            run.progress(step=step, steps=self.config.steps)
            await run.checkpoint(step, {"step": step}, lambda folder: (folder / "weights").write_text("w"))
        await run.evaluate(step=self.config.steps)
'''
TASKS = [{"id": f"t{number}", "input": number, "answer": number * 2} for number in range(4)]
STEPS = 3
ROLLOUTS = STEPS * len(TASKS) * 2 + 2 * 2
"""Of a whole run: three steps of groups of two, and two evaluations of two tasks."""


def odd_tasks() -> list[dict[str, Any]]:
    return [{"id": "even", "input": 1}, {"id": "odd", "input": b"bytes"}]


def make_modules(folder: Path) -> Path:
    """Where the server imports from."""
    folder.mkdir()
    (folder / "doubling.py").write_text(CODE, encoding="utf-8")
    return folder


def make_config(folder: Path, **changes: Any) -> Path:
    """A config with its tasks, where nothing can be imported."""
    folder.mkdir(exist_ok=True)
    lines = "\n".join(json.dumps(task) for task in TASKS)
    (folder / "tasks.jsonl").write_text(lines, encoding="utf-8")
    config = {
        "agent": "doubling:answer",
        "tasks": {"train": str(folder / "tasks.jsonl"), "held_out": str(folder / "tasks.jsonl"), "held_out_limit": 2},
        "reward": "doubling:right",
        "algorithm": {"name": "doubling:Steps"},
        "runner": {"concurrency": 1},
        "store": "sqlite:///nowhere/store.db",
        "directory": "/nowhere",
        "name": "doubling",
        **changes,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path
