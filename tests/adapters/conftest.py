"""The frameworks that are installed, each with its adapter installed around a test."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters.framework import Framework, missing
from adapters.harness import Harness
from adapters.script import script
from stub_server import StubServer

from agentlightning.recording import Recorder

NAMES = sorted(path.stem for path in (Path(__file__).parent / "frameworks").glob("*.py"))


@pytest.fixture(params=NAMES)
def framework(request: pytest.FixtureRequest) -> Framework:
    found: Framework = importlib.import_module(f"adapters.frameworks.{request.param}").framework
    if absent := missing(found):
        pytest.skip(f"{', '.join(absent)} not installed")
    name = request.node.name.partition("[")[0].removeprefix("test_")
    if name in found.gaps:
        request.applymarker(pytest.mark.xfail(reason=found.gaps[name], strict=True))
    return found


@pytest.fixture
def harness(framework: Framework) -> Iterator[Harness]:
    with StubServer() as own, StubServer() as served:
        own.reply(script)
        served.reply(script)
        harness = Harness(framework, own, served)
        harness.adapter.prepare()
        framework.solver(own.base_url)  # a framework is hooked into once it is loaded
        for adapter in harness.adapters.values():
            adapter.install()
        yield harness
        for adapter in harness.adapters.values():
            adapter.uninstall()


@pytest.fixture
def raising_hooks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and every span that a hook begins or ends raises."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a hook of ours is broken")

    def breaks() -> None:
        monkeypatch.setattr(Recorder, "start", broken)
        monkeypatch.setattr(Recorder, "end", broken)

    return breaks
