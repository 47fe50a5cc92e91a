"""Prints what each adapter captures, as the conformance suite tests it: ``python tests/adapters/table.py``.

A dash is a gap of the framework, tested to be one; the reasons stand below the table.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
TITLES = {
    "autogen": "AutoGen",
    "crewai": "CrewAI",
    "langchain": "LangChain",
    "langgraph": "LangGraph",
    "openai_agents": "OpenAI Agents",
}


def tested() -> list[str]:
    """The names of the suite's tests, without ``test_``."""
    tree = ast.parse((HERE / "test_conformance.py").read_text(encoding="utf-8"))
    return [node.name.removeprefix("test_") for node in tree.body if isinstance(node, ast.AsyncFunctionDef)]


def table() -> str:
    """The table in Markdown, with the reasons of its gaps."""
    names = sorted(path.stem for path in (HERE / "frameworks").glob("*.py"))
    gaps = {name: importlib.import_module(f"adapters.frameworks.{name}").framework.gaps for name in names}
    lines = [f"| | {' | '.join(TITLES.get(name, name) for name in names)} |", f"| --- |{' :-: |' * len(names)}"]
    for test in tested():
        cells = ["–" if test in gaps[name] else "yes" for name in names]
        lines.append(f"| {test.replace('_', ' ')} | {' | '.join(cells)} |")
    reasons = [f"- {name}, {test.replace('_', ' ')}: {why}" for name in names for test, why in gaps[name].items()]
    return "\n".join([*lines, "", *(reasons or ["No framework leaves a gap here."])])


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.stdout.write(f"{table()}\n")
