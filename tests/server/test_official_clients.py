"""Official clients and frameworks call the gateway, unchanged, and get what they would get without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import openai
import pytest
import ways_to_call
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import Reply, text, tool_call
from stub_server import StubServer

from agentlightning.records import Span
from agentlightning_server.server import LightningServer

TOOL_TURNS: list[Reply] = [tool_call("add", a=3, b=4, content=""), text("It is 7.")]
Agent = Callable[[str], Coroutine[Any, Any, Any]]


@pytest.fixture
def base_url(gateway: LightningServer) -> str:
    """Of a rollout that runs."""
    return f"{gateway.url}/rollouts/a/v1"


@pytest.fixture
async def recorded(gateway: LightningServer, open_store: Any) -> Any:
    store = open_store()
    await store.open_run(a_run("mine"))
    await store.enqueue([a_rollout("a", run_id="mine")])
    await store.lease("w", ids=["a"], seconds=FOR_EVER)

    async def spans() -> list[Span]:
        return [span for span in await store.spans("a") if span.kind == "llm"]

    yield spans
    await store.close()


@pytest.mark.parametrize("way", ways_to_call.WAYS)
async def test_the_openai_client_gets_the_same_answer(
    way: ways_to_call.Way, base_url: str, upstream: StubServer, recorded: Any
) -> None:
    answers = []
    for url in (upstream.base_url, base_url):
        upstream.clear()
        answers.append(await asyncio.to_thread(way, url))
    direct, passed = (_plain(answer) for answer in answers)
    assert passed == direct
    assert len(await recorded()) == 1


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def langchain(base_url: str) -> Any:
    agent = _langchain_agent(base_url)
    return [_said(message) for message in (await agent.ainvoke(_QUESTION))["messages"]]


async def langchain_stream(base_url: str) -> Any:
    agent = _langchain_agent(base_url)
    return [_said(message) async for message, _ in agent.astream(_QUESTION, stream_mode="messages")]


_QUESTION: Any = {"messages": [("user", "three and four?")]}


def _langchain_agent(base_url: str) -> Any:
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    return create_agent(ChatOpenAI(model="gpt", base_url=base_url, api_key="none", max_retries=0), [add])  # type: ignore[arg-type]


def _said(message: Any) -> Any:
    return message.type, message.content, [(call["name"], call["args"]) for call in getattr(message, "tool_calls", ())]


async def agents_sdk(base_url: str) -> Any:
    from agents import Runner

    result = await Runner.run(_sdk_agent(base_url), "three and four?")
    return result.final_output, [type(item).__name__ for item in result.new_items]


async def agents_sdk_stream(base_url: str) -> Any:
    from agents import Runner

    result = Runner.run_streamed(_sdk_agent(base_url), "three and four?")
    events = [event.type async for event in result.stream_events()]
    return result.final_output, events


def _sdk_agent(base_url: str) -> Any:
    """In the SDK's default mode: responses."""
    from agents import Agent, OpenAIProvider, function_tool

    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
    model = OpenAIProvider(openai_client=client).get_model("gpt")
    return Agent("adder", instructions="Add.", tools=[function_tool(add)], model=model)


@pytest.mark.parametrize("agent", [langchain, langchain_stream, agents_sdk, agents_sdk_stream])
async def test_an_agent_of_a_framework_does_the_same(
    agent: Agent, base_url: str, upstream: StubServer, recorded: Any
) -> None:
    pytest.importorskip({"langchain": "langchain.agents", "agents": "agents"}[agent.__name__.partition("_")[0]])
    did = []
    for url in (upstream.base_url, base_url):
        upstream.clear()
        upstream.reply(*TOOL_TURNS)
        did.append(await agent(url))
    assert did[0] == did[1]
    asked, answered = await recorded()
    assert "add" in str(asked.generation.response)
    assert "It is 7." in str(answered.generation.response)


def _plain(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_plain(one) for one in answer]
    return answer.model_dump() if hasattr(answer, "model_dump") else answer
