"""What the tests of the AutoGen adapter share: the adapters installed, a scripted model endpoint, a way to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from recorded import installed, record
from stub_server import StubServer

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


@pytest.fixture
def adapter() -> Iterator[AutoGenAdapter]:
    adapter = AutoGenAdapter()
    with installed(OpenAIAdapter(), adapter):
        yield adapter


@pytest.fixture
def rollout(adapter: AutoGenAdapter) -> Callable[..., Any]:
    """``with rollout() as recorded:`` records the block."""
    return record


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
