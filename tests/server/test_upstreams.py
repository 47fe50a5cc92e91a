"""Which upstream gets a call, when it is sent again, and what happens to one that fails."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from losing_network import lasting_port
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import error, text
from stub_server import StubServer

from agentlightning_server.errors import ServerError
from agentlightning_server.gateway import forward
from agentlightning_server.gateway.upstreams import Upstream, Upstreams, upstreams_at
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

HTTP = httpx.Client(timeout=30)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def _never(upstream: Upstream) -> bool:
    return False


@pytest.fixture
def replicas() -> Iterator[tuple[StubServer, StubServer]]:
    with StubServer() as one, StubServer() as other:
        yield one, other


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "FIRST_PAUSE_SECONDS", 0.02)


def call(url: str, **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTP.post(f"{url}/v1/chat/completions", json=ASKED, headers=sent, timeout=30)


def until(happened: Callable[[], bool]) -> None:
    """Returns when it has, at the latest in 10 seconds."""
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 seconds")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_a_rollouts_calls_go_to_one_replica_and_others_to_the_least_loaded() -> None:
    one, other = Upstream("http://a/v1"), Upstream("http://b/v1")
    upstreams = Upstreams([one, other], _never)
    kept = upstreams.choose("r")
    kept.in_flight = 5
    assert upstreams.choose("r") is kept
    assert upstreams.choose("s") is not kept
    assert upstreams.choose(None) is not kept


@given(st.lists(st.sampled_from(["r", "s", None]), max_size=30), st.integers(1, 4), st.data())
def test_no_call_goes_to_one_that_is_out_while_another_is_in(
    calls: list[str | None], count: int, data: st.DataObject
) -> None:
    upstreams = Upstreams([Upstream(f"http://{index}/v1") for index in range(count)], _never)
    for rollout in calls:
        for upstream in upstreams.all:
            upstream.is_in = data.draw(st.booleans())
        chosen = upstreams.choose(rollout)
        assert chosen.is_in or not any(upstream.is_in for upstream in upstreams.all)
        chosen.calls += 1


async def test_calls_are_shared_among_replicas(
    serve: Callable[..., LightningServer], replicas: tuple[StubServer, StubServer]
) -> None:
    server = serve(upstreams=[stub.base_url for stub in replicas])
    for _ in range(6):
        assert call(server.url).status_code == 200
    assert [len(stub.requests) for stub in replicas] == [3, 3]
    store = RemoteStore(server.url)
    await store.open_run(a_run("mine"))
    await store.enqueue([a_rollout(id, run_id="mine") for id in "ab"])
    await store.lease("w", limit=2, seconds=FOR_EVER)
    for id in "aabbab":
        assert call(server.url, x_agentlightning_rollout=id).status_code == 200
    assert [len(stub.requests) for stub in replicas] == [6, 6]
    await store.close()


def test_calls_at_once_go_where_fewer_are(
    serve: Callable[..., LightningServer], replicas: tuple[StubServer, StubServer]
) -> None:
    server = serve(upstreams=[stub.base_url for stub in replicas])
    held = threading.Event()
    for stub in replicas:
        stub.reply(lambda request: text("Hello.", hold=held))
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(call, server.url) for _ in range(4)]
        until(lambda: sum(len(stub.requests) for stub in replicas) == 4)
        shared = [len(stub.requests) for stub in replicas]
        held.set()
        assert [answer.result().status_code for answer in answers] == [200] * 4
    assert shared == [2, 2]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_a_call_is_sent_again_and_the_span_says_how_often(
    serve: Callable[..., LightningServer], status: int
) -> None:
    with StubServer() as stub:
        server = serve(upstreams=[stub.base_url])
        store = RemoteStore(server.url)
        await store.open_run(a_run("mine"))
        await store.enqueue([a_rollout("a", run_id="mine")])
        await store.lease("w", seconds=FOR_EVER)
        stub.reply(error(status), error(status))
        assert call(server.url, x_agentlightning_rollout="a").status_code == 200
        assert len(stub.requests) == 3
        [span] = await store.spans("a")
        assert span.attributes["http.request.resend_count"] == 2
        assert HTTP.get(f"{server.url}/v1/gateway").json()["retries"] == 2
        await store.close()


@pytest.mark.parametrize("status", [400, 401, 404, 422, 501])
def test_what_will_not_be_otherwise_is_not_sent_again(serve: Callable[..., LightningServer], status: int) -> None:
    with StubServer() as stub:
        stub.reply(error(status))
        assert call(serve(upstreams=[stub.base_url]).url).status_code == status
        assert len(stub.requests) == 1


def test_the_last_answer_is_the_clients(serve: Callable[..., LightningServer]) -> None:
    with StubServer() as stub:
        stub.reply(lambda request: error(429, "slow down", retry_after="0"))
        refused = call(serve(upstreams=[stub.base_url]).url)
        assert (refused.status_code, refused.json()["error"]["message"]) == (429, "slow down")
        assert len(stub.requests) == 1 + forward.MAX_RETRIES


def test_an_upstream_that_asks_for_more_patience_than_there_is_is_not_asked_again(
    serve: Callable[..., LightningServer],
) -> None:
    with StubServer() as stub:
        stub.reply(error(429, "tomorrow", retry_after="86400"))
        refused = call(serve(upstreams=[stub.base_url]).url)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "86400")
        assert len(stub.requests) == 1


def test_an_upstream_that_asks_for_a_pause_gets_it(serve: Callable[..., LightningServer]) -> None:
    with StubServer() as stub:
        stub.reply(error(429, retry_after="0.4"))
        answer = call(serve(upstreams=[stub.base_url]).url)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() >= 0.4


def test_a_replica_that_cannot_be_reached_is_out_until_it_answers(serve: Callable[..., LightningServer]) -> None:
    with StubServer() as stub:
        server = serve(upstreams=[f"http://127.0.0.1:{closed_port()}/v1", stub.base_url])
        assert [call(server.url).status_code for _ in range(4)] == [200] * 4
        dead, well = HTTP.get(f"{server.url}/v1/gateway").json()["upstreams"]
    assert (dead["is_in"], dead["calls"], dead["failures"]) == (False, 1, 1)
    assert (well["is_in"], well["calls"], well["failures"]) == (True, 4, 0)


def test_a_replica_that_failed_comes_back_when_it_is_well(
    serve: Callable[..., LightningServer], replicas: tuple[StubServer, StubServer]
) -> None:
    server = serve(upstreams=[stub.base_url for stub in replicas])
    replicas[0].reply(error(503))
    assert [call(server.url).status_code for _ in range(2)] == [200] * 2
    until(lambda: all(it["is_in"] for it in HTTP.get(f"{server.url}/v1/gateway").json()["upstreams"]))
    call(server.url)
    seen = Counter(received.path for received in replicas[0].requests)
    assert (seen["/health"], seen["/v1/chat/completions"]) == (1, 2)


def test_a_call_that_nobody_answers_is_an_error_that_says_so(serve: Callable[..., LightningServer]) -> None:
    port = lasting_port()
    refused = call(serve(upstreams=[f"http://127.0.0.1:{port}/v1"]).url)
    assert refused.status_code == 502
    assert refused.json()["error"]["type"] == "server_error"
    assert f"the upstream 127.0.0.1:{port} did not answer" in refused.json()["error"]["message"]


def test_a_server_without_upstreams_says_how_to_get_one(server: LightningServer) -> None:
    refused = call(server.url)
    assert refused.status_code == 404
    assert "start it with agl server --upstream" in refused.json()["error"]["message"]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://user:pw@a/v1", "http://a/v1?key=1", ""])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ServerError, match="expected a base URL such as") as refused:
        upstreams_at([url], None)
    assert "pw" not in str(refused.value)


def test_a_key_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ServerError, match="the environment has no such variable"):
        upstreams_at(["http://a/v1"], "NO_SUCH_KEY")


async def test_an_upstream_is_well_by_its_models_where_it_has_no_health(
    replicas: tuple[StubServer, StubServer],
) -> None:
    forwarder = forward.Forwarder()
    forwarder.start()
    assert await forwarder.is_well(Upstream(replicas[0].base_url))
    assert not await forwarder.is_well(Upstream(f"http://127.0.0.1:{closed_port()}/v1"))
    await forwarder.close()
    await asyncio.sleep(0)
