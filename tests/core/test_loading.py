"""``module:attribute`` targets, and the errors that say which part of one is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentlightning.errors import ConfigError
from agentlightning.loading import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, from which modules are loaded and forgotten again."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_loads_a_dotted_attribute_from_the_current_directory(folder: Path) -> None:
    (folder / "shop_agent.py").write_text("class Shop:\n    graph = 'the graph'\n")
    assert load("shop_agent:Shop.graph") == "the graph"


def test_a_module_written_after_the_directory_was_read_is_found(folder: Path) -> None:
    with pytest.raises(ConfigError):
        load("late_module:x")
    (folder / "late_module.py").write_text("x = 1\n")
    assert load("late_module:x") == 1


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("graph = 1", "shop_agnt:graph", ["no module named 'shop_agnt'", "did you mean 'shop_agent'?"]),
        ("graph = 1", "shop_agent:grpah", ["module 'shop_agent' has no 'grpah'", "did you mean 'graph'?"]),
        ("graph = 1", "shop_agent", ["'shop_agent': expected module:attribute"]),
        ("graph = 1", "./shop_agent.py:graph", ["expected a module, not a file: write shop_agent:graph"]),
        ("graph = 1", "shop_agent.inner:graph", ["no module named 'shop_agent.inner'"]),
        ("import no_such_library", "shop_agent:graph", ["does not import", "no_such_library", "shop_agent.py:1"]),
        ("x = 1\ny = x / 0", "shop_agent:graph", ["ZeroDivisionError", "shop_agent.py:2: y = x / 0"]),
        ("def f(:\n    pass", "shop_agent:graph", ["SyntaxError", "shop_agent.py:1: def f(:"]),
        ("raise SystemExit('no key')", "shop_agent:graph", ["SystemExit: no key", "shop_agent.py:1"]),
        (
            "try:\n    {}['KEY']\nexcept KeyError as e:\n    raise ValueError('set KEY') from e",
            "shop_agent:graph",
            ["ValueError: set KEY (", "caused by KeyError: 'KEY' ("],
        ),
    ],
)
def test_the_error_says_which_part_failed(folder: Path, source: str, target: str, expected: list[str]) -> None:
    (folder / "shop_agent.py").write_text(source)
    with pytest.raises(ConfigError) as error:
        load(target)
    for part in expected:
        assert part in str(error.value)
