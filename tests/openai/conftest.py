"""A stub server, a recorder, the client patched, and every way to make a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from stub_server import StubServer

from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span
from agentlightning_openai.adapter import OpenAIAdapter

KEY = "sk-the-agents-own-key"


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def policy_stub() -> Iterator[StubServer]:
    """The policy's endpoint, beside the agent's own."""
    with StubServer() as server:
        yield server


@pytest.fixture
def patched() -> Iterator[OpenAIAdapter]:
    adapter = OpenAIAdapter()
    adapter.install()
    yield adapter
    adapter.uninstall()


@pytest.fixture
def client(stub: StubServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def async_client(stub: StubServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0)


class Rollouts:
    """Starts rollouts; ``spans`` are those that ended, in the order in which they did."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    @contextmanager
    def __call__(self, *resources: AnyResource, seed: int | None = None) -> Iterator[Recorder]:
        recorder = Recorder("rollout-1", 1, self.spans.extend, resources, seed=seed)
        with recording(recorder):
            yield recorder

    @property
    def span(self) -> Span:
        (only,) = self.spans
        return only


@pytest.fixture
def rollout(patched: OpenAIAdapter) -> Rollouts:
    return Rollouts()
