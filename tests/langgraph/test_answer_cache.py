"""LangChain's cache of answers: a rollout whose calls are routed asks each time; everything else has the cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_openai import ChatOpenAI, OpenAI
from recorded import record
from stub_answers import Raw, Received
from stub_server import StubServer

from agentlightning import recording
from agentlightning.records import ModelChoice, Policy, Prompt, Resource

pytestmark = pytest.mark.usefixtures("model_layer")

Ask = Callable[[str], Any]


@pytest.fixture(autouse=True)
def cache(adapter: Any) -> Iterator[InMemoryCache]:
    made = InMemoryCache()
    set_llm_cache(made)
    yield made
    set_llm_cache(None)


def chat(base_url: str) -> Any:
    return ChatOpenAI(model="own", base_url=base_url, api_key="k", max_retries=0).invoke("Hi")


def completed(_: Received) -> Raw:
    """An answer of the legacy completions API."""
    choice = {"index": 0, "text": "Hello.", "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body = {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return Raw(200, json.dumps(body).encode())


def text(base_url: str) -> Any:
    return OpenAI(model="own", base_url=base_url, api_key="k", max_retries=0).invoke("Hi")


@pytest.fixture(params=[chat, text], ids=["chat", "text"])
def ask(request: pytest.FixtureRequest, stub: StubServer) -> Ask:
    made: Ask = request.param
    if made is text:
        stub.reply(completed)
    return made


def policy(stub: StubServer, *agents: str) -> Policy:
    return Policy(name="policy", agents=agents or ("*",), model="tiny", base_url=stub.base_url)


def test_each_rollout_asks_the_policy(stub: StubServer, ask: Ask) -> None:
    for number in range(4):
        with record(f"r{number}", [policy(stub)]) as recorded:
            ask(stub.base_url)
        assert recorded.only("llm").generation.policy == "policy"
    assert len(stub.requests) == 4


async def test_asynchronous_calls_ask_it_too(stub: StubServer) -> None:
    for number in range(2):
        with record(f"r{number}", [policy(stub)]):
            await ChatOpenAI(model="own", base_url=stub.base_url, api_key="k", max_retries=0).ainvoke("Hi")
    assert len(stub.requests) == 2


@pytest.mark.parametrize("resource", [ModelChoice(name="c", model="cheap"), Prompt(name="p", template="Be kind.")])
def test_another_model_or_prompt_is_asked_each_time(stub: StubServer, resource: Resource) -> None:
    for number in range(2):
        with record(f"r{number}", [resource]):
            chat(stub.base_url)
    assert len(stub.requests) == 2


def test_what_a_policy_says_is_not_kept_for_others(stub: StubServer, ask: Ask) -> None:
    with record(resources=[policy(stub)]):
        ask(stub.base_url)
    ask(stub.base_url)
    ask(stub.base_url)
    assert [request.json["model"] for request in stub.requests] == ["tiny", "own"]


def test_an_agent_that_is_not_trained_keeps_the_cache(stub: StubServer) -> None:
    for number in range(3):
        with record(f"r{number}", [policy(stub, "solver")]), recording.span("judge", agent="judge"):
            chat(stub.base_url)
    assert [request.json["model"] for request in stub.requests] == ["own"]


def test_a_rollout_without_resources_keeps_the_cache(stub: StubServer, ask: Ask) -> None:
    for number in range(3):
        with record(f"r{number}"):
            ask(stub.base_url)
    assert len(stub.requests) == 1


def test_a_cache_that_is_set_within_a_rollout_is_passed_by_as_well(stub: StubServer) -> None:
    for number in range(2):
        with record(f"r{number}", [policy(stub)]):
            set_llm_cache(InMemoryCache())
            chat(stub.base_url)
            chat(stub.base_url)
    assert len(stub.requests) == 4


def test_the_agents_own_cache_is_set_again(stub: StubServer, adapter: Any, cache: InMemoryCache) -> None:
    with record(resources=[policy(stub)]):
        chat(stub.base_url)
    assert get_llm_cache() is not cache
    adapter.uninstall()
    assert get_llm_cache() is cache
