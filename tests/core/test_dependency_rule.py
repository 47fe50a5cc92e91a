"""Who may import whom: core no plugin; a plugin core and its own framework, never another plugin, except that
adapters may use the model layer; rewards, and what learns prompts, that layer's way to ask a model; and algorithms the
trainable policy, and the gateway, which renders chats and serves what a sampler writes (the policy serves its own
through it)."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = {
    "adapters": {"agentlightning_openai"},
    "rewards": {"agentlightning_openai"},
    "algorithms": {"agentlightning_policy", "agentlightning_gateway"},
    "algorithms/prompt": {"agentlightning_openai"},
}


def distributions() -> list[Path]:
    """The folder of every distribution in the repository, core first."""
    found = [
        path.parent for kind in ("adapters", "algorithms", "rewards") for path in ROOT.glob(f"{kind}/*/pyproject.toml")
    ]
    return [ROOT / "core", *sorted(found)]


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Every ``agentlightning…`` package that the files of a folder import, wherever in the file, and where."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                if name.split(".")[0].startswith("agentlightning"):
                    yield name.split(".")[0], f"{path.relative_to(ROOT)}:{node.lineno}"


@pytest.mark.parametrize("folder", distributions(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_distribution_imports_only_what_it_may(folder: Path) -> None:
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    shared = SHARED.get(str(folder.relative_to(ROOT)), SHARED.get(folder.parent.name, set()))
    allowed = {"agentlightning", *packages, *shared}
    assert [(name, where) for name, where in imported(folder) if name not in allowed] == []


@pytest.mark.parametrize("folder", distributions(), ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_distribution_requires_what_it_imports(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {project["name"], *(need.split(">")[0].split("[")[0] for need in project["dependencies"])}
    needed = {name.replace("_", "-") for name, _ in imported(folder)}
    assert needed <= required


TERMINAL = ("agentlightning.cli", "click", "rich")


def test_nothing_of_core_imports_the_terminal_program() -> None:
    """Not in a function either, and not for types only."""
    core = ROOT / "core" / "agentlightning"
    found = []
    for path in sorted(core.rglob("*.py")):
        if not path.is_relative_to(core / "cli"):
            names = [alias.name for node in _nodes(path) if isinstance(node, ast.Import) for alias in node.names]
            names += [node.module or "" for node in _nodes(path) if isinstance(node, ast.ImportFrom)]
            found += [(path.name, name) for name in names if f"{name}.".startswith(tuple(f"{it}." for it in TERMINAL))]
    assert found == []


def _nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_the_modules_of_core_use_only_those_above_them_in_the_readmes_table() -> None:
    """In a function neither; for types only they may."""
    core = ROOT / "core" / "agentlightning"
    section = (ROOT / "core" / "README.md").read_text(encoding="utf-8").split("## The rooms")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    floor_of = {name.rstrip("/"): floor for floor, row in enumerate(rows) for name in re.findall(r"`([\w/]+)`", row)}
    upward = []
    for path in sorted(core.rglob("*.py")):
        module = path.relative_to(core).with_suffix("").parts[0]
        if module != "__init__":
            above = (name for name in _of_core(path) if floor_of[name] > floor_of[module])
            upward += [(str(path.relative_to(core)), name) for name in above]
    assert upward == []


def _of_core(path: Path) -> Iterator[str]:
    """The modules of core that a file imports anywhere, but for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = {inner for node in types for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in skipped and node.module:
            package, *inside = node.module.split(".")
            if package == "agentlightning":
                yield from inside[:1] or (alias.name for alias in node.names if alias.name != "__version__")


def test_the_files_of_core_import_each_other_in_no_circle() -> None:
    core = ROOT / "core" / "agentlightning"
    graph = {path: set(_at_import(path, core)) for path in core.rglob("*.py") if path != core / "__init__.py"}
    done: set[Path] = set()
    while graph.keys() - done:
        ready = {path for path in graph.keys() - done if graph[path] <= done}
        assert ready, sorted(str(path.relative_to(core)) for path in graph.keys() - done)
        done |= ready


def _at_import(path: Path, core: Path) -> Iterator[Path]:
    """The files of core that a file imports when it is imported itself (not in a function, not for types only)."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agentlightning"):
            folder = core.joinpath(*node.module.split(".")[1:])
            for target in [folder, *(folder / alias.name for alias in node.names)]:
                for file in (target.with_suffix(".py"), target / "__init__.py"):
                    if file.exists() and file not in (path, core / "__init__.py"):
                        yield file
