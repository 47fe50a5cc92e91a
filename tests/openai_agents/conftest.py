"""What the tests of the OpenAI Agents SDK adapter share: the adapter and the model layer installed, an endpoint that
says what it is told, and a way to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, function_tool
from openai import AsyncOpenAI
from recorded import installed, record
from stub_answers import Answer, Call, Choice
from stub_server import StubServer

from agentlightning_openai.adapter import OpenAIAdapter
from agentlightning_openai_agents.adapter import OpenAIAgentsAdapter


@pytest.fixture(autouse=True)
def adapter() -> Iterator[OpenAIAgentsAdapter]:
    adapter = OpenAIAgentsAdapter()
    with installed(OpenAIAdapter(), adapter):
        yield adapter


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


@pytest.fixture
def rollout(adapter: OpenAIAgentsAdapter) -> Callable[..., Any]:
    """``with rollout() as recorded:`` records the block."""
    return record
