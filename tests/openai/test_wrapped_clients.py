"""Whoever else has wrapped the client, and when: a call is redirected and recorded once, or is not sent."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest
from instrumentations import INSTRUMENTATIONS
from openai._base_client import SyncAPIClient
from openai.resources.chat.completions import Completions
from openai.types.chat import ChatCompletion
from ways_to_call import CHAT, KEY, WAYS, Way

from agentlightning.errors import AdapterError
from agentlightning.records import Policy
from agentlightning_openai import guard
from agentlightning_openai.adapter import OpenAIAdapter


@pytest.fixture
def policy(policy_stub) -> Policy:
    return Policy(name="policy", model="tiny", base_url=policy_stub.base_url)


@pytest.fixture(params=INSTRUMENTATIONS)
def instrumentor(request: pytest.FixtureRequest, untouched: None) -> Iterator[Any]:
    module, name = INSTRUMENTATIONS[request.param]
    pytest.importorskip(module, exc_type=ImportError)
    made = getattr(importlib.import_module(module), name)()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


@pytest.fixture
def exporter() -> Any:
    """The spans that an instrumentation writes."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    exporter.provider = trace.TracerProvider()
    exporter.provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


@pytest.fixture(params=["before", "after"])
def instrumented(request: pytest.FixtureRequest, instrumentor: Any, exporter: Any) -> Iterator[Any]:
    """An instrumentation on the client, put there before our hooks or after."""
    adapter = OpenAIAdapter()
    if request.param == "after":
        adapter.install()
    instrumentor.instrument(tracer_provider=exporter.provider)
    adapter.install()
    yield exporter
    adapter.uninstall()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_instrumented_call_is_redirected_and_recorded_once(
    instrumented, rollouts, stub, policy_stub, policy, way: Way
) -> None:
    with rollouts(policy):
        way(stub.base_url)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 1)
    assert rollouts.span.failure is None
    assert rollouts.span.generation.policy == "policy"
    assert KEY not in str(policy_stub.requests[0].headers)


def test_an_instrumentation_sees_the_call_as_well(instrumented, rollouts, stub, policy) -> None:
    with rollouts(policy):
        WAYS[0](stub.base_url)
    assert len(instrumented.get_finished_spans()) == 1


def test_what_an_agent_reads_raw_is_recorded_though_others_had_it_parsed(instrumented, rollouts, stub) -> None:
    create = openai.OpenAI(base_url=stub.base_url, api_key=KEY).responses.with_streaming_response.create
    with rollouts(), create(model="m", input="Hi", stream=True) as response:
        list(response.iter_lines())
    assert rollouts.span.generation.response["content"] == "Hello."


def test_an_instrumented_call_outside_of_a_rollout_is_the_agents_own(instrumented, rollouts, stub, policy_stub) -> None:
    WAYS[0](stub.base_url)
    assert (len(stub.requests), len(policy_stub.requests), rollouts.spans) == (1, 0, [])


def test_an_instrumentation_that_is_taken_out_again_lets_no_call_pass(
    instrumented, instrumentor, rollouts, stub, policy_stub, policy
) -> None:
    instrumentor.uninstrument()
    with rollouts(policy), suppress(AdapterError):
        WAYS[0](stub.base_url)
    assert stub.requests == []
    assert len(rollouts.spans) == 1
    assert len(policy_stub.requests) == (rollouts.span.failure is None)


Wrap = Callable[[Any], None]


def class_method(client: Any) -> None:
    """On the subclass that everybody uses."""
    inner = openai.OpenAI.request
    openai.OpenAI.request = lambda self, *args, **kwargs: inner(self, *args, **kwargs)  # type: ignore[method-assign]


def create_method(client: Any) -> None:
    inner = Completions.create
    Completions.create = lambda self, *args, **kwargs: inner(self, *args, **kwargs)  # type: ignore[method-assign]


def instance_method(client: Any) -> None:
    inner = client.request
    client.request = lambda *args, **kwargs: inner(*args, **kwargs)


def post_of_the_instance(client: Any) -> None:
    inner = client.post
    client.post = lambda *args, **kwargs: inner(*args, **kwargs)


def method_of_a_subclass(client: Any) -> None:
    class Traced(openai.OpenAI):
        def request(self, *args: Any, **kwargs: Any) -> Any:
            return super().request(*args, **kwargs)

    client.__class__ = Traced


def method_kept_from_the_base(client: Any) -> None:
    """As `functools.partial` or an early binding keeps it."""
    inner = SyncAPIClient.request
    openai.OpenAI.request = lambda self, *args, **kwargs: inner(self, *args, **kwargs)  # type: ignore[method-assign]


WRAPS = [
    class_method,
    create_method,
    instance_method,
    post_of_the_instance,
    method_of_a_subclass,
    method_kept_from_the_base,
]


@pytest.fixture
def own_client(stub) -> openai.OpenAI:
    return openai.OpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0)


@pytest.mark.parametrize("wrap", WRAPS, ids=lambda wrap: wrap.__name__)
def test_what_is_wrapped_later_is_seen(untouched, rollout, stub, policy_stub, policy, own_client, wrap: Wrap) -> None:
    wrap(own_client)
    with rollout(policy):
        own_client.chat.completions.create(**CHAT)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 1)
    assert rollout.span.generation.provenance == "exact"


@pytest.mark.parametrize("wrap", WRAPS, ids=lambda wrap: wrap.__name__)
def test_what_was_wrapped_earlier_is_seen_or_not_sent(
    untouched, rollouts, stub, policy_stub, policy, own_client, wrap: Wrap
) -> None:
    wrap(own_client)
    adapter = OpenAIAdapter()
    adapter.install()
    try:
        with rollouts(policy):
            if wrap is instance_method:
                with pytest.raises(AdapterError, match=r"gpt at 127\.0\.0\.1.*test_wrapped_clients\.py.*not seen"):
                    own_client.chat.completions.create(**CHAT)
            else:
                own_client.chat.completions.create(**CHAT)
    finally:
        adapter.uninstall()
    assert stub.requests == []
    failure = rollouts.span.failure
    assert len(policy_stub.requests) == (failure is None)
    assert failure is None or (failure.type, failure.fault) == ("redirect_failed", "infrastructure")


def test_what_is_not_seen_and_not_redirected_either_is_said_once(
    untouched, rollouts, stub, own_client, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(guard, "_warned", set())
    instance_method(own_client)
    adapter = OpenAIAdapter()
    adapter.install()
    try:
        with rollouts(), caplog.at_level(logging.WARNING):
            for _ in range(2):
                own_client.chat.completions.create(**CHAT)
    finally:
        adapter.uninstall()
    assert len(stub.requests) == 2
    assert [("is not recorded" in record.getMessage()) for record in caplog.records] == [True]


def test_a_wrapper_that_answers_by_itself_is_no_call_of_the_policy(
    untouched, rollouts, stub, policy_stub, policy, own_client
) -> None:
    """A cache, say: what it answers was written by nobody now."""
    kept = own_client.chat.completions.create(**CHAT)
    stub.clear()
    openai.OpenAI.request = lambda self, *args, **kwargs: kept  # type: ignore[method-assign]
    adapter = OpenAIAdapter()
    adapter.install()
    try:
        with rollouts(policy):
            assert own_client.chat.completions.create(**CHAT) is kept
    finally:
        adapter.uninstall()
    assert isinstance(kept, ChatCompletion)
    assert stub.requests == policy_stub.requests == []
    said = rollouts.span.generation
    assert (said.policy, said.response["content"], rollouts.span.failure) == (None, "Hello.", None)


def test_a_subclass_keeps_its_own_state(rollout, policy_stub, policy) -> None:
    class Counting(openai.OpenAI):
        calls = 0

        def request(self, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return super().request(*args, **kwargs)

    client = Counting(base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0)
    with rollout(policy):
        client.chat.completions.create(**CHAT)
        client.with_options(timeout=5).chat.completions.create(**CHAT)
    assert (client.calls, len(policy_stub.requests)) == (1, 2)
