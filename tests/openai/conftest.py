"""A stub server, a recorder, the client patched, and every way to make a call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest
from instrumentations import as_it_was
from stub_server import StubServer

from agentlightning.recording import Recorder, recording
from agentlightning.records import AnyResource, Span
from agentlightning_openai.adapter import OpenAIAdapter

KEY = "sk-the-agents-own-key"


@pytest.fixture(scope="session")
def servers() -> Iterator[tuple[StubServer, StubServer]]:
    with StubServer() as first, StubServer() as second:
        yield first, second


@pytest.fixture
def stub(servers: tuple[StubServer, StubServer]) -> StubServer:
    """The endpoint that the agent's clients are made for."""
    servers[0].clear()
    return servers[0]


@pytest.fixture
def policy_stub(servers: tuple[StubServer, StubServer]) -> StubServer:
    """The policy's endpoint."""
    servers[1].clear()
    return servers[1]


@pytest.fixture
def patched() -> Iterator[OpenAIAdapter]:
    adapter = OpenAIAdapter()
    adapter.install()
    yield adapter
    adapter.uninstall()


@pytest.fixture(scope="session")
def shared_client(servers: tuple[StubServer, StubServer]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=servers[0].base_url, api_key=KEY, max_retries=0) as made:
        yield made


@pytest.fixture
def client(stub: StubServer, shared_client: openai.OpenAI) -> openai.OpenAI:
    return shared_client


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
def rollouts() -> Rollouts:
    """Rollouts, and nothing hooked in."""
    return Rollouts()


@pytest.fixture
def rollout(patched: OpenAIAdapter, rollouts: Rollouts) -> Rollouts:
    return rollouts


@pytest.fixture
def untouched() -> Iterator[None]:
    """The client's classes are afterwards as they were."""
    with as_it_was():
        yield
