"""An adapter that a stranger writes from core's README alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import openai
import pytest
from recorded import installed, record
from stub_server import StubServer

from agentlightning.records import Policy
from agentlightning_openai.adapter import OpenAIAdapter

README = Path(__file__).parents[2] / "core" / "README.md"


class Agent:
    """An agent of the framework: its model is a function."""

    def __init__(self, name: str, model: Any, helper: Agent | None = None) -> None:
        self.name, self.model, self.helper = name, model, helper

    async def run(self, question: str) -> str:
        with _told("agent", self.name):
            if self.helper is not None:
                question = await self.helper.run(question)
            with _told("model", "own") as ends:
                ends["value"] = await self.model(question)
            return str(ends["value"])


@contextmanager
def _told(what: str, name: str) -> Iterator[dict[str, Any]]:
    """Tells the framework's listeners that something begins, and that it ends, with its value or what it raised."""
    listeners = sys.modules["toy_agents"].listeners
    ends: dict[str, Any] = {"value": None}
    for listener in listeners:
        listener(f"{what} begins", name, None)
    try:
        yield ends
    except Exception as error:
        ends["value"] = error
        raise
    finally:
        for listener in listeners:
            listener(f"{what} ends", name, ends["value"])


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    framework = ModuleType("toy_agents")
    framework.Agent, framework.listeners = Agent, []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_agents", framework)
    (block,) = re.findall(r"```python\n(\"\"\"An adapter for toy_agents.*?)```", README.read_text("utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    return namespace["ToyAdapter"]()


async def echo(question: str) -> str:
    return f"{question}!"


async def test_it_runs_its_agents_and_says_who_acted(adapter: Any) -> None:
    agent = Agent("writer", echo, Agent("researcher", echo))
    assert adapter.accepts(agent)
    assert not adapter.accepts(echo)
    with installed(adapter), record() as recorded:
        assert await adapter.run(agent, "Who") == "Who!!"
    assert recorded.outline() == [
        "agent writer [writer]",
        "  agent researcher [researcher]",
        "    llm chat own [researcher]",
        "  llm chat own [writer]",
    ]
    assert [call.generation.response["content"] for call in recorded.all("llm")] == ["Who!", "Who!!"]


async def test_a_call_that_the_model_layer_sees_is_one_span_and_goes_to_the_policy(adapter: Any) -> None:
    async def ask(question: str) -> str:
        async with openai.AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="own") as client:
            messages: Any = [{"role": "user", "content": question}]
            answer = await client.chat.completions.create(model="own", messages=messages)
        return str(answer.choices[0].message.content)

    with StubServer() as stub, installed(adapter, OpenAIAdapter()):
        policy = Policy(name="policy", agents=("writer",), model="tiny", base_url=stub.base_url)
        with record(resources=[policy]) as recorded:
            assert await adapter.run(Agent("writer", ask), "Who?") == "Hello."
    assert recorded.outline() == ["agent writer [writer]", "  llm chat tiny [writer]"]
    assert recorded.only("llm").generation.provenance == "exact"


async def test_what_an_agent_raises_is_its_failure(adapter: Any) -> None:
    async def fail(question: str) -> str:
        raise ValueError(question)

    with installed(adapter), record() as recorded, pytest.raises(ValueError):
        await adapter.run(Agent("writer", fail), "Who?")
    assert recorded.outline() == ["agent writer [writer] !agent_error", "  llm chat own [writer] !agent_error"]
    assert sys.modules["toy_agents"].listeners == []
