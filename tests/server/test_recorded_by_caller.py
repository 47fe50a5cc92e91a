"""A call through the gateway of an agent that runs our adapters is recorded once: by the adapter, which gets the tokens
that the gateway asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import Received, error, text
from stub_server import StubServer

from agentlightning.recording import Recorder, recording
from agentlightning.records import Policy, Span
from agentlightning_openai.adapter import OpenAIAdapter
from agentlightning_openai.router import goes_to_gateway
from agentlightning_server.keys import Keys
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

WAYS = ("chat", "responses")
ADMIN = "the-key-of-the-server"


@pytest.fixture
async def store(gateway: LightningServer) -> AsyncIterator[RemoteStore]:
    """The server's, where the rollout ``a`` runs."""
    opened = RemoteStore(gateway.url)
    await opened.open_run(a_run("mine"))
    await opened.enqueue([a_rollout("a", run_id="mine")])
    await opened.lease("w", ids=["a"], seconds=FOR_EVER)
    yield opened
    await opened.close()


@pytest.fixture
def adapted() -> Iterator[None]:
    adapter = OpenAIAdapter()
    adapter.install()
    yield
    adapter.uninstall()


def ask(base_url: str, way: str, streamed: bool, *, api_key: str = "k", **options: Any) -> list[dict[str, Any]]:
    """What an agent is given: an answer, or the chunks of one."""
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, **options)
    if way == "chat":
        messages: Any = [{"role": "user", "content": "Hi"}]
        answer: Any = client.chat.completions.create(model="m", messages=messages, stream=streamed)
    else:
        answer = client.responses.create(model="m", input="Hi", stream=streamed)
    return [one.model_dump() for one in (answer if streamed else [answer])]


def recorded_of(base_url: str, way: str, streamed: bool, *resources: Policy, **options: Any) -> Span:
    spans: list[Span] = []
    with recording(Recorder("a", 1, spans.extend, resources)):
        given = ask(base_url, way, streamed, **options)
    assert "token_ids" not in str(given)
    assert "logprob'" not in str(given)
    [span] = spans
    return span


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("adapted")
async def test_a_call_at_a_rollouts_own_address_is_recorded_once_with_its_tokens(
    gateway: LightningServer, store: RemoteStore, upstream: StubServer, way: str, streamed: bool
) -> None:
    span = recorded_of(f"{gateway.url}/rollouts/a/v1", way, streamed)
    assert span.generation is not None
    assert span.generation.exact_tokens is not None
    assert await store.spans("a") == []
    assert len(upstream.requests) == 1


@pytest.mark.usefixtures("adapted")
async def test_so_is_one_whose_client_names_the_rollout_in_a_header(
    gateway: LightningServer, store: RemoteStore
) -> None:
    span = recorded_of(f"{gateway.url}/v1", "chat", False, default_headers={"x-agentlightning-rollout": "a"})
    assert span.generation is not None
    assert span.generation.exact_tokens is not None
    assert await store.spans("a") == []


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.usefixtures("adapted")
async def test_so_is_one_whose_key_is_for_the_rollout_alone(
    serve: Callable[..., LightningServer], upstream: StubServer, streamed: bool
) -> None:
    server = serve(upstreams=[upstream.base_url], key=ADMIN)
    store = RemoteStore(server.url, key=ADMIN)
    await store.open_run(a_run("mine"))
    await store.enqueue([a_rollout("a", run_id="mine")])
    await store.lease("w", ids=["a"], seconds=FOR_EVER)
    key = Keys(ADMIN).issue_for_rollout("a", write=True, seconds=600)
    span = recorded_of(f"{server.url}/v1", "chat", streamed, api_key=key)
    assert span.generation is not None
    assert span.generation.exact_tokens is not None
    assert await store.spans("a") == []
    await store.close()


@pytest.mark.parametrize(
    ("api_key", "is_for_it"),
    [
        (Keys(ADMIN).issue_for_rollout("a", write=True, seconds=600), True),
        (Keys(ADMIN).issue_for_rollout("b", write=True, seconds=600), False),
        (Keys(ADMIN).issue("mine", write=True, seconds=600), False),
        ("a.b.c", False),
        ("a.e30.c", False),
        ("a.WzFd.c", False),
        ("sk-no.jwt", False),
    ],
)
def test_which_keys_are_for_a_rollout(api_key: str, is_for_it: bool) -> None:
    client = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key=api_key)
    options = SimpleNamespace(url="/chat/completions", headers={})
    assert goes_to_gateway(client, options, "a") is is_for_it


@pytest.mark.usefixtures("adapted")
async def test_so_is_one_of_a_policy_that_is_served_through_the_gateway(
    gateway: LightningServer, store: RemoteStore, upstream: StubServer
) -> None:
    policy = Policy(name="p", version=3, model="tiny", base_url=f"{gateway.url}/v1", sampling={"top_p": 0.5})
    span = recorded_of("http://127.0.0.1:9/v1", "chat", False, policy)
    assert span.generation is not None
    assert span.generation.exact_tokens is not None
    assert await store.spans("a") == []
    assert upstream.requests[0].json["top_p"] == 0.5


@pytest.mark.usefixtures("adapted")
async def test_where_the_upstream_gives_no_tokens_the_call_is_recorded_as_text(
    gateway: LightningServer, store: RemoteStore, upstream: StubServer
) -> None:
    def no_tokens(request: Received) -> Any:
        return error(400, "unknown field: logprobs") if "logprobs" in request.json else text("Hello.")

    upstream.reply(no_tokens)
    span = recorded_of(f"{gateway.url}/rollouts/a/v1", "chat", False)
    assert span.generation is not None
    assert (span.generation.provenance, span.failure) == ("text", None)
    assert await store.spans("a") == []


@pytest.mark.usefixtures("adapted")
async def test_a_call_that_no_rollout_makes_here_is_recorded_by_the_gateway(
    gateway: LightningServer, store: RemoteStore
) -> None:
    ask(f"{gateway.url}/rollouts/a/v1", "chat", False)
    [span] = await store.spans("a")
    assert span.generation is not None
    assert span.generation.exact_tokens is not None


@pytest.mark.usefixtures("adapted")
async def test_a_call_is_refused_where_the_rollout_does_not_run(gateway: LightningServer, store: RemoteStore) -> None:
    await store.enqueue([a_rollout("b", run_id="mine")])
    spans: list[Span] = []
    with recording(Recorder("b", 1, spans.extend)), pytest.raises(openai.ConflictError, match="rollout b is queued"):
        ask(f"{gateway.url}/rollouts/b/v1", "chat", False)
