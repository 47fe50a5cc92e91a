"""A policy's calls go straight to its endpoint, whatever proxies the agent has; its own calls keep them."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from stub_server import StubServer
from ways_to_call import CHAT, KEY, WAYS, Way

from agentlightning.records import ModelChoice, Policy
from agentlightning_openai import direct
from agentlightning_openai.router import ResourceRouter

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubServer]:
    """A proxy that the environment names for every address; it answers itself, as the stub does."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with StubServer() as made:
        for name in VARIABLES:
            monkeypatch.setenv(name, made.base_url.removesuffix("/v1"))
        yield made


@pytest.fixture
def policy(policy_stub) -> Policy:
    return Policy(name="policy", model="tiny", base_url=policy_stub.base_url)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_policys_calls_pass_the_environments_proxies_by(rollout, stub, policy_stub, policy, proxy, way: Way) -> None:
    with rollout(policy):
        way(stub.base_url)
    assert (len(stub.requests), len(proxy.requests), len(policy_stub.requests)) == (0, 0, 1)
    assert rollout.span.failure is None


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_agents_own_calls_keep_them(rollout, stub, policy_stub, policy, proxy, way: Way) -> None:
    policy.agents = ("somebody else",)
    with rollout(policy):
        way(stub.base_url)
    assert (len(stub.requests), len(proxy.requests), len(policy_stub.requests)) == (0, 1, 0)


def libraries() -> list[Any]:
    return [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]


@pytest.fixture(params=libraries(), ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    kind = openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]
    if request.param.__name__ == "httpx2" and kind == "httpx":
        pytest.skip("this client is built on httpx alone")
    return request.param


def options(library: Any, proxy: StubServer, kind: str) -> dict[str, Any]:
    """An HTTP client's own way to a proxy."""
    url = proxy.base_url.removesuffix("/v1")
    if kind == "proxy":
        return {"proxy": url}
    if kind == "mounts":
        return {"mounts": {"all://": library.HTTPTransport(proxy=url)}}
    return {"transport": library.HTTPTransport(proxy=url)}


@pytest.mark.parametrize("kind", ["proxy", "mounts", "transport"])
def test_proxies_of_the_agents_http_client_are_passed_by(
    rollout, stub, policy_stub, policy, proxy, library, kind
) -> None:
    with library.Client(**options(library, proxy, kind)) as http:
        client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, http_client=http, max_retries=0)
        with rollout(policy):
            client.chat.completions.create(**CHAT)
            list(client.chat.completions.create(**CHAT, stream=True))
        client.chat.completions.create(**CHAT)
    assert (len(stub.requests), len(proxy.requests), len(policy_stub.requests)) == (0, 1, 2)


async def test_proxies_of_an_asynchronous_http_client_are_passed_by(
    rollout, stub, policy_stub, policy, proxy, library
) -> None:
    async with library.AsyncClient(proxy=proxy.base_url.removesuffix("/v1")) as http:
        client = openai.AsyncOpenAI(base_url=stub.base_url, api_key=KEY, http_client=http, max_retries=0)
        with rollout(policy):
            await client.chat.completions.create(**CHAT)
            assert [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
    assert (len(stub.requests), len(proxy.requests), len(policy_stub.requests)) == (0, 0, 2)


@pytest.mark.parametrize(
    ("base_url", "directly"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://openrouter.ai/api/v1", False),
        (None, False),
    ],
)
def test_a_chosen_model_keeps_the_proxies_unless_it_is_on_this_machine(rollout, base_url, directly) -> None:
    with rollout(ModelChoice(name="choice", model="cheap", base_url=base_url)) as recorder:
        assert ResourceRouter(recorder, None).goes_directly is directly


def test_a_chosen_model_on_this_machine_passes_the_proxies_by(rollout, stub, policy_stub, proxy) -> None:
    with rollout(ModelChoice(name="choice", model="cheap", base_url=policy_stub.base_url)):
        WAYS[0](stub.base_url)
    assert (len(stub.requests), len(proxy.requests), len(policy_stub.requests)) == (0, 0, 1)


def test_hooks_and_cookies_of_the_agents_http_client_stay_with_it(rollout, stub, policy_stub, policy) -> None:
    def sign(request: Any) -> None:
        request.headers["x-signature"] = "secret"

    http = openai.DefaultHttpxClient(cookies={"session": "secret"}, event_hooks={"request": [sign]})
    client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, http_client=http, max_retries=0)
    client.chat.completions.create(**CHAT)
    assert stub.requests[0].header("x-signature") == "secret"
    with rollout(policy):
        client.chat.completions.create(**CHAT)
    assert "secret" not in str(policy_stub.requests[0].headers)


def test_the_agents_time_limit_holds(rollout, stub, policy_stub, policy) -> None:
    client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0, timeout=httpx.Timeout(7, connect=3))
    seen: list[Any] = []
    with rollout(policy), pytest.MonkeyPatch.context() as patching:
        send = direct.send_directly

        def look(request: Any) -> None:
            seen.append(request.extensions["timeout"])
            send(request)

        patching.setattr("agentlightning_openai.call.send_directly", look)
        client.chat.completions.create(**CHAT)
    assert seen == [{"connect": 3, "read": 7, "write": 7, "pool": 7}]


def test_a_client_that_was_closed_says_so(rollout, stub, policy_stub, policy) -> None:
    client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0)
    with rollout(policy):
        client.chat.completions.create(**CHAT)
        client.close()
        with pytest.raises((RuntimeError, openai.APIConnectionError)):
            client.chat.completions.create(**CHAT)
    assert len(policy_stub.requests) == 1


def test_nothing_is_kept_of_a_client_that_is_gone(rollout, stub, policy) -> None:
    gc.collect()
    before = len(direct._beside)
    with rollout(policy):
        client = openai.OpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0)
        client.chat.completions.create(**CHAT)
        asyncio.run(_ask(stub))
    assert len(direct._beside) == before + 1
    client.close()
    del client
    gc.collect()
    assert len(direct._beside) == before


async def _ask(stub: StubServer) -> None:
    async with openai.AsyncOpenAI(base_url=stub.base_url, api_key=KEY, max_retries=0) as client:
        await client.chat.completions.create(**CHAT)


def test_uninstalling_puts_the_http_libraries_back(rollout, patched, stub, policy) -> None:
    library: Any = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]
    places = [(library.Client, "send"), (library.Client, "close"), (library.AsyncClient, "aclose")]
    patched.uninstall()
    before = [vars(owner)[name] for owner, name in places]
    patched.install()
    with rollout(policy):
        WAYS[0](stub.base_url)
    assert all(vars(owner)[name] is not then for (owner, name), then in zip(places, before, strict=True))
    patched.uninstall()
    assert all(vars(owner)[name] is then for (owner, name), then in zip(places, before, strict=True))
