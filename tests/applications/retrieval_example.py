"""The modules of examples/retrieval, and spans to score."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from applications import example_copy

from agentlightning.records import Generation, Span, Task
from agentlightning.semconv import TOOL_CALL_RESULT

FOLDER = example_copy.EXAMPLES / "retrieval"


def load(name: str, folder: Path = FOLDER) -> ModuleType:
    """The module of the example."""
    (module,) = example_copy.load(folder, name)
    return module


def write_tasks(folder: Path) -> ModuleType:
    """What ``python tasks.py`` does in a copy; returns the module of its agent."""
    tasks = load("tasks", folder)
    sys.modules.pop("agent", None)
    sys.path.insert(0, str(folder))
    try:
        tasks.write(tasks.small_set())
        return sys.modules.pop("agent")
    finally:
        sys.path.remove(str(folder))


def task(answer: str, *passages: int) -> Task:
    return Task(id="t", input="?", expected={"answer": answer, "passages": list(passages)})


def search_of(*numbers: int, **fields: Any) -> Span:
    """A search that has shown these passages."""
    return searched("\n".join(f"[{number}] Title {number}: A text, with [9] in it." for number in numbers), **fields)


def searched(result: Any, **fields: Any) -> Span:
    attributes = {TOOL_CALL_RESULT: result}
    return Span(rollout_id="r", kind="tool", name="search", attributes=attributes, **fields)


def call_after(results: Iterable[str]) -> Span:
    """A model call in whose conversation these results of searches stand."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "[1] Is that true?"}]
    for result in results:
        messages += [{"role": "assistant", "content": None}, {"role": "tool", "tool_call_id": "1", "content": result}]
    return Span(rollout_id="r", kind="llm", name="chat", generation=Generation(messages=messages))
