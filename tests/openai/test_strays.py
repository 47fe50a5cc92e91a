"""Calls beside the agent's own: in threads and executors they are of its rollout; elsewhere of none, which is said."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import openai
import pytest
from ways_to_call import CHAT, WAYS, Way

from agentlightning.errors import AdapterError
from agentlightning.recording import outside, span, stray_calls, strays
from agentlightning.records import Policy
from agentlightning_openai import guard

SECONDS = 20


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strays, "_strays", {})
    monkeypatch.setattr(guard, "_warned", set())


@pytest.fixture
def policy(policy_stub) -> Policy:
    return Policy(name="policy", agents=("solver",), model="tiny", base_url=policy_stub.base_url)


def elsewhere(call: Callable[..., Any], *args: Any) -> Any:
    """Calls in a context that knows of no rollout."""
    return contextvars.Context().run(call, *args)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_calls_in_an_executor_beside_a_call_of_the_agents_own_are_its_own(
    rollout, stub, policy_stub, policy, way: Way
) -> None:
    with rollout(policy), span("solver", agent="solver"), ThreadPoolExecutor(2) as pool:
        beside = [pool.submit(way, stub.base_url) for _ in range(2)]
        way(stub.base_url)
        for future in beside:
            future.result(SECONDS)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 3)
    calls = [span for span in rollout.spans if span.kind == "llm"]
    assert [(call.agent, call.generation.policy) for call in calls] == [("solver", "policy")] * 3
    assert stray_calls() == []


async def test_calls_in_the_loops_executor_are_the_agents_own(rollout, stub, policy_stub, policy) -> None:
    with rollout(policy), span("solver", agent="solver"):
        await asyncio.get_running_loop().run_in_executor(None, WAYS[0], stub.base_url)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 1)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_in_a_training_run_a_stray_call_is_an_error_and_not_sent(rollout, stub, policy_stub, policy, way: Way) -> None:
    with rollout(policy), pytest.raises(AdapterError, match=r"gpt at 127\.0\.0\.1.*belongs to no rollout.*not sent"):
        elsewhere(way, stub.base_url)
    assert stub.requests == policy_stub.requests == []
    (stray,) = stray_calls()
    assert (stray.model, stray.host, stray.count, stray.refused) == ("gpt", "127.0.0.1", 1, True)
    assert "ways_to_call.py:" in stray.location


def test_where_nothing_is_trained_a_stray_call_is_sent_and_said_once(rollout, stub, caplog) -> None:
    with rollout(), caplog.at_level(logging.ERROR):
        for _ in range(2):
            elsewhere(WAYS[0], stub.base_url)
    assert len(stub.requests) == 2
    assert [record.getMessage().count("ways_to_call.py:") for record in caplog.records] == [1]


def test_a_worker_with_a_queue_belongs_to_no_rollout(rollout, stub, policy_stub, policy) -> None:
    jobs: queue.Queue[Future[Any]] = queue.Queue()

    def work() -> None:
        future = jobs.get(timeout=SECONDS)
        try:
            future.set_result(WAYS[0](stub.base_url))
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    with rollout(policy):
        jobs.put(future := Future())
        with pytest.raises(AdapterError, match="belongs to no rollout"):
            future.result(SECONDS)
    assert stub.requests == policy_stub.requests == []


def test_a_reward_that_asks_a_model_is_no_stray(rollout, stub, policy) -> None:
    def judge() -> None:
        with outside(), ThreadPoolExecutor(1) as pool:
            pool.submit(WAYS[0], stub.base_url).result(SECONDS)

    with rollout(policy):
        elsewhere(judge)
    assert (len(stub.requests), stray_calls()) == (1, [])


def test_embeddings_are_nobodys_business(rollout, stub, client, policy) -> None:
    with rollout(policy):
        elsewhere(lambda: client.embeddings.create(model="e", input="x"))
    assert (len(stub.requests), stray_calls()) == (1, [])


def test_an_azure_client_is_no_exception(rollout, stub, policy_stub, policy) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=stub.base_url, api_key="k", api_version="2024-06-01", azure_deployment="d", max_retries=0
    )
    with rollout(policy), pytest.raises(AdapterError, match="belongs to no rollout"):
        elsewhere(lambda: client.chat.completions.create(**CHAT))
    assert stub.requests == policy_stub.requests == []


def test_without_a_rollout_there_is_no_stray(patched, stub) -> None:
    WAYS[0](stub.base_url)
    assert stray_calls() == []


FORKING = """
import multiprocessing, sys

import openai

from agentlightning.recording import Recorder, recording
from agentlightning.records import Policy
from agentlightning_openai.adapter import OpenAIAdapter

OpenAIAdapter().install()
client = openai.OpenAI(base_url=sys.argv[1], api_key="k", max_retries=0)


def ask():
    try:
        client.chat.completions.create(model="gpt", messages=[])
    except Exception as error:
        print(type(error).__name__, error)


with recording(Recorder("r", 1, print, [Policy(name="policy", model="tiny", base_url=sys.argv[2])])):
    process = multiprocessing.get_context("fork").Process(target=ask, daemon=True)
    process.start()
    process.join(20)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no process")
def test_a_process_that_is_forked_from_a_rollout_sends_nothing(stub, policy_stub) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORKING, stub.base_url, policy_stub.base_url],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.startswith("RedirectError a call of gpt at 127.0.0.1"), ran.stderr
    assert "forked from its rollout's" in ran.stdout
    assert stub.requests == policy_stub.requests == []
