"""What the tests of the CrewAI adapter share: the adapter and the model layer installed, a scripted endpoint, a way to
record."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span
from agentlightning_crewai.adapter import CrewAIAdapter
from agentlightning_openai.adapter import OpenAIAdapter

_storage = tempfile.TemporaryDirectory(prefix="crewai-")
os.environ["CREWAI_STORAGE_DIR"] = _storage.name  # CrewAI reads it when it is imported, and keeps files there
for _adapter in (CrewAIAdapter(), OpenAIAdapter()):
    _adapter.prepare()
importlib.import_module("crewai")  # the adapter hooks into it only where it is loaded


class Recording:
    """The spans of one rollout, by index once it is closed."""

    def __init__(self, rollout_id: str, resources: Sequence[AnyResource]) -> None:
        self.spans: list[Span] = []
        self.recorder = Recorder(rollout_id, 1, self.spans.extend, resources)

    def close(self) -> None:
        self.recorder.close()
        self.spans.sort(key=lambda span: span.index)

    def outline(self) -> list[str]:
        """One line a span: two spaces a level, kind (or structure), name, the agent in brackets, its failure."""
        by_id = {span.id: span for span in self.spans}
        lines = []
        for span in self.spans:
            depth, above = 0, span.parent_id
            while above is not None:
                depth, above = depth + 1, by_id[above].parent_id
            kind = span.attributes.get(semconv.STRUCTURE, span.kind)
            failure = f" !{span.failure.type}" if span.failure else ""
            lines.append(f"{'  ' * depth}{kind} {span.name} [{span.agent}]{failure}")
        return lines

    def only(self, kind: str, name: str | None = None) -> Span:
        """The one span of that kind (and name)."""
        (span,) = self.all(kind, name)
        return span

    def all(self, kind: str, name: str | None = None) -> list[Span]:
        """Every span of that kind (and name)."""
        return [span for span in self.spans if span.kind == kind and name in (None, span.name)]


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def adapter() -> Iterator[CrewAIAdapter]:
    adapters = [OpenAIAdapter(), CrewAIAdapter()]
    for adapter in adapters:
        adapter.install()
    yield adapters[-1]
    for adapter in adapters:
        adapter.uninstall()


@pytest.fixture
def rollout(adapter: CrewAIAdapter) -> Callable[..., Any]:
    """``with rollout() as recorded:`` records the block."""

    @contextmanager
    def begin(rollout_id: str = "r", resources: Sequence[AnyResource] = ()) -> Iterator[Recording]:
        recorded = Recording(rollout_id, resources)
        try:
            with recording(recorded.recorder):
                yield recorded
        finally:
            recorded.close()

    return begin


class Made:
    """Agents, tasks and crews whose model is the stub."""

    def __init__(self, stub: StubServer) -> None:
        self._stub = stub

    def model(self, **options: Any) -> Any:
        from crewai import LLM

        given = {"model": "stub-model", "provider": "openai", "api_key": "sk-test", "max_retries": 0, **options}
        return LLM(base_url=self._stub.base_url, **given)

    def agent(self, role: str, **options: Any) -> Any:
        from crewai import Agent

        given = {"goal": "Answer.", "backstory": "You know it.", "llm": self.model(), **options}
        return Agent(role=role, **given)

    def task(self, agent: Any, description: str = "{question}", **options: Any) -> Any:
        from crewai import Task

        return Task(description=description, expected_output="An answer.", agent=agent, **options)

    def crew(self, *tasks: Any, agents: Sequence[Any] | None = None, **options: Any) -> Any:
        from crewai import Crew

        workers = {id(task.agent): task.agent for task in tasks if task.agent is not None}
        given = {"name": "team", "agents": list(workers.values() if agents is None else agents), **options}
        return Crew(tasks=list(tasks), **given)


@pytest.fixture
def made(stub: StubServer) -> Made:
    return Made(stub)
