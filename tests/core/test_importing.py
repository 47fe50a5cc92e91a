"""What waits for a module is done when it is imported, wherever that happens."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentlightning.adapter import Adapter
from agentlightning.importing import forget, when_imported

Module = Callable[[str, str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Writes a module that can be imported; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names: list[str] = []

    def make(name: str, text: str = "") -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        names.append(name)
        return name

    yield make
    for name in names:
        sys.modules.pop(name, None)


def test_a_hook_is_called_before_the_importer_goes_on(module: Module) -> None:
    name = module("framework_a", "value = 1")
    seen: list[int] = []
    when_imported(name, lambda: seen.append(sys.modules[name].value))
    assert seen == []
    importlib.import_module(name)
    assert seen == [1]


def test_a_hook_for_what_is_imported_already_is_called_at_once(module: Module) -> None:
    importlib.import_module(name := module("framework_b", ""))
    seen: list[str] = []
    when_imported(name, lambda: seen.append(name))
    assert seen == [name]


def test_each_hook_is_called_once(module: Module) -> None:
    name = module("framework_c", "")
    seen: list[str] = []

    def first() -> None:
        seen.append("first")

    for hook in (first, first, lambda: seen.append("second")):
        when_imported(name, hook)
    importlib.import_module(name)
    assert seen == ["first", "second"]


def test_a_hook_that_was_taken_back_is_not_called(module: Module) -> None:
    name = module("framework_d", "")
    seen: list[str] = []

    def hook() -> None:
        seen.append(name)

    when_imported(name, hook)
    forget(name, hook)
    importlib.import_module(name)
    assert seen == []


def test_a_hook_that_fails_harms_no_import(module: Module, caplog: pytest.LogCaptureFixture) -> None:
    name = module("framework_e", "")
    seen: list[str] = []
    when_imported(name, lambda: 1 // 0)
    when_imported(name, lambda: seen.append(name))
    with caplog.at_level(logging.ERROR):
        importlib.import_module(name)
    assert seen == [name]
    assert "framework_e was imported, and could not be hooked into" in caplog.text


def test_a_module_that_does_not_import_raises_as_ever(module: Module) -> None:
    name = module("framework_f", "1 / 0")
    when_imported(name, list)
    with pytest.raises(ZeroDivisionError):
        importlib.import_module(name)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("framework_that_is_not_there")


class Fake(Adapter):
    name = "fake"

    def __init__(self, *modules: str) -> None:
        self.modules = modules  # type: ignore[misc]
        self.done: list[str] = []

    def accepts(self, agent: object) -> bool:
        return False

    async def run(self, agent: object, input: object) -> object:
        return None

    def hook(self) -> None:
        self.done.append("hook")

    def unhook(self) -> None:
        self.done.append("unhook")


def test_an_adapter_hooks_into_each_of_its_modules_when_it_is_imported(module: Module) -> None:
    importlib.import_module(first := module("framework_g", ""))
    adapter = Fake(first, second := module("framework_h", ""))
    adapter.install()
    assert adapter.done == ["hook"]
    importlib.import_module(second)
    assert adapter.done == ["hook", "hook"]


def test_an_adapter_that_was_uninstalled_waits_no_more(module: Module) -> None:
    adapter = Fake(name := module("framework_i", ""))
    adapter.install()
    adapter.uninstall()
    importlib.import_module(name)
    assert adapter.done == ["unhook"]
