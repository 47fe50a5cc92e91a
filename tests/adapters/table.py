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
    "plain": "No framework",
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
    return "\n".join([*lines, "", *(reasons(gaps) or ["No framework leaves a gap here."])])


def reasons(gaps: dict[str, dict[str, str]]) -> list[str]:
    """A line for each reason, with the tests of a framework that it is for."""
    tests: dict[tuple[str, str], list[str]] = {}
    for name, whys in gaps.items():
        for test, why in whys.items():
            tests.setdefault((name, why), []).append(test.replace("_", " "))
    return [f"- {TITLES.get(name, name)}: {', '.join(those)}: {why}." for (name, why), those in tests.items()]


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    sys.stdout.write(f"{table()}\n")
