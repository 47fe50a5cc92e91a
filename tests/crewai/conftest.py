"""What the tests of the CrewAI adapter share: the adapter and the model layer installed, a scripted endpoint, a way to
record."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from recorded import installed, record
from stub_server import StubServer

from agentlightning_crewai.adapter import CrewAIAdapter
from agentlightning_openai.adapter import OpenAIAdapter

_storage = tempfile.TemporaryDirectory(prefix="crewai-")
os.environ["CREWAI_STORAGE_DIR"] = _storage.name  # CrewAI reads it when it is imported, and keeps files there
for _adapter in (CrewAIAdapter(), OpenAIAdapter()):
    _adapter.prepare()
importlib.import_module("crewai")  # the adapter hooks into it only where it is loaded


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def adapter() -> Iterator[CrewAIAdapter]:
    adapter = CrewAIAdapter()
    with installed(OpenAIAdapter(), adapter):
        yield adapter


@pytest.fixture
def rollout(adapter: CrewAIAdapter) -> Callable[..., Any]:
    """``with rollout() as recorded:`` records the block."""
    return record


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
