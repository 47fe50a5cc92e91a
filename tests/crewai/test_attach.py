"""Deployed crews, flows and agents: each way to run one is one rollout of a live run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crewai import LLM, Agent, Crew, Flow, Task
from crewai.flow.flow import start
from stub_server import StubServer

import agentlightning as agl
from agentlightning.records import Rollout
from agentlightning.store import open_store


@pytest.fixture
def helper() -> Iterator[Any]:
    with StubServer() as stub:
        llm = LLM(model="openai/any", base_url=stub.base_url, api_key="sk-a-key-of-the-tests-12345")
        yield Agent(role="helper", goal="help", backstory="helps", llm=llm)


class Greeting(Flow):  # type: ignore[type-arg]
    @start()
    def greet(self) -> str:
        return "hi"


def test_crews_flows_and_agents(helper: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    agl.attach(url, buffer=tmp_path / "buffer")
    crew = Crew(agents=[helper], tasks=[Task(description="{question}", expected_output="a text", agent=helper)])
    crew.kickoff(inputs={"question": "hello?"})
    asyncio.run(crew.kickoff_async(inputs={"question": "hello?"}))
    helper.kickoff("hello?")
    Greeting().kickoff()
    agl.detach(timeout=30)

    async def read() -> list[Rollout]:
        store = open_store(url)
        try:
            return await store.rollouts("live")
        finally:
            await store.close()

    outputs = [
        (one.status, one.output["output"] if isinstance(one.output, dict) else one.output)
        for one in asyncio.run(read())
    ]
    assert outputs == [("succeeded", "Hello.")] * 3 + [("succeeded", "hi")]
