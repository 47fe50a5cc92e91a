"""What the tests of the OpenAI Agents SDK adapter share: the adapter and the model layer installed, an endpoint that
says what it is told, and a way to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from adapters.house import Recorded
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, function_tool
from openai import AsyncOpenAI
from stub_server import Answer, Call, Choice, StubServer

from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span
from agentlightning_openai.adapter import OpenAIAdapter
from agentlightning_openai_agents.adapter import OpenAIAgentsAdapter


@pytest.fixture(autouse=True)
def adapter() -> Iterator[OpenAIAgentsAdapter]:
    adapter, layer = OpenAIAgentsAdapter(), OpenAIAdapter()
    for each in (layer, adapter):
        each.install()
    yield adapter
    for each in (layer, adapter):
        each.uninstall()


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as stub:
        yield stub


@pytest.fixture
def client(stub: StubServer) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=stub.base_url, api_key="sk-own", max_retries=0)


@pytest.fixture
def make(client: AsyncOpenAI) -> Callable[..., Agent]:
    """``make("solver", tools=[…])``: an agent whose model is the endpoint; ``chat=True`` calls its chat API."""

    def agent(name: str, *, chat: bool = False, **options: Any) -> Agent:
        model = (OpenAIChatCompletionsModel if chat else OpenAIResponsesModel)("own-model", client)
        return Agent(name, model=model, **options)

    return agent


@pytest.fixture
def add() -> Any:
    @function_tool
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        if a < 0:
            raise ValueError("only positive numbers")
        return a + b

    return add


@pytest.fixture
def calls() -> Callable[..., Answer]:
    """``calls(("add", '{"a": 1, "b": 2}'))``: the model calls tools, as ``call_0``, ``call_1`` … from ``first`` on."""

    def answer(*called: tuple[str, str], first: int = 0) -> Answer:
        made = [Call(name, arguments, f"call_{first + place}") for place, (name, arguments) in enumerate(called)]
        return Answer([Choice(None, made)])

    return answer


class Rollout:
    """One rollout being recorded; ``recorded`` once it is over."""

    recorded: Recorded

    def outline(self) -> list[str]:
        return self.recorded.outline().splitlines()

    def only(self, kind: str, name: str | None = None) -> Span:
        (span,) = [span for span in self.recorded.kind(kind) if name in (None, span.name)]
        return span


@pytest.fixture
def rollout() -> Callable[..., Any]:
    """``with rollout() as ran:`` records the block."""

    @contextmanager
    def begin(rollout_id: str = "r", resources: Sequence[AnyResource] = ()) -> Iterator[Rollout]:
        spans: list[Span] = []
        recorder, ran = Recorder(rollout_id, 1, spans.extend, resources), Rollout()
        try:
            with recording(recorder):
                yield ran
        finally:
            recorder.close()
            ran.recorded = Recorded(spans)

    return begin
