"""Deployed agents of other frameworks: each way to run one is one rollout. And a key for one live run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from stub_server import StubServer

import agentlightning as agl
from agentlightning.records import Rollout, Span
from agentlightning.store import open_store
from agentlightning_server.keys import Keys
from agentlightning_server.server import LightningServer

KEY = "sk-a-key-of-the-tests-12345"
ADMIN = "an-admin-key-of-the-tests"


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def attach(url: str, tmp_path: Path) -> Iterator[Callable[..., None]]:
    yield lambda **options: agl.attach(url, buffer=tmp_path / "buffer", **options)
    agl.detach()


def recorded(url: str) -> list[tuple[Rollout, list[Span]]]:
    agl.detach(timeout=30)

    async def read() -> list[tuple[Rollout, list[Span]]]:
        store = open_store(url)
        try:
            return [(one, await store.spans(one.id)) for one in await store.rollouts("live")]
        finally:
            await store.close()

    return asyncio.run(read())


def test_agents_of_the_openai_sdk(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, Runner

    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=stub.base_url, api_key=KEY) as client:
            agent = Agent(name="helper", model=OpenAIChatCompletionsModel("any", client))
            await Runner.run(agent, "hello?")
            streamed = Runner.run_streamed(agent, "hello again?")
            assert [event async for event in streamed.stream_events()]

    attach()
    asyncio.run(use())
    found = recorded(url)
    assert [(rollout.status, rollout.output) for rollout, _ in found] == [("succeeded", "Hello.")] * 2
    assert all({"agent", "llm"} <= {span.kind for span in spans} for _, spans in found)


def test_a_team_of_autogen(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_agentchat.teams import RoundRobinGroupChat
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    async def use() -> None:
        info: Any = {"vision": False, "function_calling": True, "json_output": False, "family": "unknown"}
        model = OpenAIChatCompletionClient(
            model="any", base_url=stub.base_url, api_key=KEY, model_info={**info, "structured_output": False}
        )
        team = RoundRobinGroupChat([AssistantAgent("helper", model)], max_turns=1)
        await team.run(task="hello?")
        assert [item async for item in team.run_stream(task="hello again?")]
        await model.close()

    attach()
    asyncio.run(use())
    found = recorded(url)
    answers = [(rollout.status, rollout.output["messages"][-1]["content"]) for rollout, _ in found]
    assert answers == [("succeeded", "Hello.")] * 2
    assert all({"agent", "llm"} <= {span.kind for span in spans} for _, spans in found)


@pytest.mark.parametrize(("run", "arrives"), [("support", True), ("other", False)])
def test_a_key_for_one_live_run_records_into_that_alone(
    run: str, arrives: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with LightningServer(url, port=0, key=ADMIN) as server:
        monkeypatch.setenv("AGL_SERVER_KEY", Keys(ADMIN).issue("support", write=True, seconds=600))
        agl.attach(server.url, run=run, buffer=tmp_path / "buffer")
        with agl.live("support", input=1):
            pass
        agl.detach(timeout=30)
    store = open_store(url)
    assert bool(asyncio.run(store.rollouts(run))) == arrives
    asyncio.run(store.close())
    assert ("this key is for run support alone" in caplog.text) != arrives
