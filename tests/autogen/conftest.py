"""What the tests of the AutoGen adapter share: the adapters installed, a scripted model endpoint, a way to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span
from agentlightning_autogen.adapter import AutoGenAdapter
from agentlightning_openai.adapter import OpenAIAdapter

MODEL_INFO = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "structured_output": True,
    "family": "unknown",
    "multiple_system_messages": True,
}


class Recording:
    """The spans of one rollout, by index once it is closed."""

    def __init__(self, rollout_id: str, resources: Sequence[AnyResource]) -> None:
        self.spans: list[Span] = []
        self.recorder = Recorder(rollout_id, 1, self.spans.extend, resources)

    def close(self) -> None:
        self.recorder.close()
        self.spans.sort(key=lambda span: span.index)

    def outline(self) -> list[str]:
        """One line a span: two spaces a level, kind (or structure), name, the agent in brackets, and its failure."""
        by_id = {span.id: span for span in self.spans}
        lines = []
        for span in self.spans:
            depth, above = 0, span.parent_id
            while above is not None:
                depth, above = depth + 1, by_id[above].parent_id
            kind = span.attributes.get(semconv.STRUCTURE, span.kind)
            failed = f" !{span.failure.type}" if span.failure else ""
            lines.append(f"{'  ' * depth}{kind} {span.name.partition(' ')[0]} [{span.agent}]{failed}")
        return lines

    def only(self, kind: str, name: str | None = None) -> Span:
        """The one span of that kind (and name)."""
        (span,) = self.all(kind, name)
        return span

    def all(self, kind: str, name: str | None = None) -> list[Span]:
        """Every span of that kind (and name)."""
        return [span for span in self.spans if span.kind == kind and name in (None, span.name)]


@pytest.fixture
def adapter() -> Iterator[AutoGenAdapter]:
    adapters = [OpenAIAdapter(), AutoGenAdapter()]
    for one in adapters:
        one.install()
    yield adapters[1]
    for one in adapters:
        one.uninstall()


@pytest.fixture
def rollout(adapter: AutoGenAdapter) -> Callable[..., Any]:
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


@pytest.fixture
def endpoint() -> Iterator[StubServer]:
    """Where the agents' model is: tell it what to answer."""
    with StubServer() as server:
        yield server


@pytest.fixture
def model(endpoint: StubServer) -> OpenAIChatCompletionClient:
    return OpenAIChatCompletionClient(
        model="own-model", base_url=endpoint.base_url, api_key="sk-own", max_retries=0, model_info=MODEL_INFO
    )


@pytest.fixture
def assistant(model: OpenAIChatCompletionClient) -> Callable[..., AssistantAgent]:
    """``assistant("writer", tools=[…])``"""

    def make(name: str, **options: Any) -> AssistantAgent:
        return AssistantAgent(name, model, **{"system_message": f"You are the {name}.", **options})

    return make


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    if a < 0:
        raise ValueError("only positive numbers")
    return a + b


@pytest.fixture(name="add")
def add_fixture() -> Callable[[int, int], int]:
    return add
