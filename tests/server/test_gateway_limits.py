"""Who may call the gateway, what it refuses, and how it is paused."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner
from store_records import FOR_EVER, a_rollout, a_run
from stub_answers import text
from stub_server import StubServer

from agentlightning.cli import main as agl
from agentlightning_server import bodies
from agentlightning_server.gateway import forward
from agentlightning_server.gateway.gate import Gate
from agentlightning_server.keys import Grant, Keys
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"
HTTP = httpx.Client(timeout=30)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
async def guarded(serve: Callable[..., LightningServer], upstream: StubServer) -> AsyncIterator[LightningServer]:
    """A server with a key, where the rollouts ``mine-1`` and ``mine-2`` of one run are running, and one of another."""
    server = serve(key=KEY, upstreams=[upstream.base_url])
    store = RemoteStore(server.url, key=KEY)
    for run in ("mine", "theirs"):
        await store.open_run(a_run(run))
        await store.enqueue([a_rollout(f"{run}-{number}", run_id=run) for number in (1, 2)])
    await store.lease("w", limit=9, seconds=FOR_EVER)
    yield server
    await store.close()


def call(server: LightningServer, path: str = "/v1", key: str | None = KEY, body: Any = None) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return HTTP.post(
        f"{server.url}{path}/chat/completions", json=ASKED if body is None else body, headers=headers, timeout=20
    )


def until(happened: Callable[[], bool]) -> None:
    """Returns when it has, at the latest in 10 seconds."""
    for _ in range(1000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within 10 seconds")


def status_of(answer: httpx.Response) -> int:
    """Its status; an error has the shape of the OpenAI API's."""
    if answer.status_code >= 400:
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    return answer.status_code


async def test_a_key_calls_for_what_it_was_made_for_and_nothing_else(
    guarded: LightningServer, upstream: StubServer
) -> None:
    keys = Keys(KEY)
    run, reading = (keys.issue("mine", write=write, seconds=600) for write in (True, False))
    rollout = keys.issue_for_rollout("mine-1", write=True, seconds=600)
    wrong = Keys("another-key-0123456789").issue("mine", write=True, seconds=600)
    expired = keys.issue_for_rollout("mine-1", write=True, seconds=-1)
    paths = ("/v1", "/rollouts/mine-1/v1", "/rollouts/mine-2/v1", "/rollouts/theirs-1/v1", "/rollouts/nobody/v1")
    allowed = {
        KEY: (200, 200, 200, 200, 404),
        run: (403, 200, 200, 403, 403),
        rollout: (200, 200, 403, 403, 403),
        reading: (403,) * 5,
        wrong: (401,) * 5,
        expired: (401,) * 5,
        None: (401,) * 5,
    }
    for key, statuses in allowed.items():
        assert tuple(status_of(call(guarded, path, key)) for path in paths) == statuses
    assert len(upstream.requests) == 8


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_to_an_upstream_that_falls_silent_ends_as_such(
    guarded: LightningServer, upstream: StubServer, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(forward, "SILENCE_SECONDS", 0.2)
    held = threading.Event()
    upstream.reply(text("Late.", hold=held))
    answer = call(guarded, "/rollouts/mine-1/v1", body={**ASKED, "stream": streamed})
    held.set()
    store = RemoteStore(guarded.url, key=KEY)
    [span] = await store.spans("mine-1")
    await store.close()
    assert answer.status_code == (200 if streamed else 504)
    assert ("said nothing for 0.2 s" if streamed else "did not answer") in answer.text
    assert span.failure is not None
    assert (span.failure.type, span.failure.fault) == ("timeout", "infrastructure")
    assert len(upstream.requests) == 1


async def test_a_key_for_a_rollout_is_all_that_an_agent_needs_beside_the_base_url(guarded: LightningServer) -> None:
    key = Keys(KEY).issue_for_rollout("mine-1", write=True, seconds=600)
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key)
    assert client.chat.completions.create(**ASKED).choices[0].message.content == "Hello."
    store = RemoteStore(guarded.url, key=key)
    assert len(await store.spans("mine-1")) == 1
    for refused in (store.runs(), store.spans("mine-2"), store.run("mine"), store.rollouts("mine")):
        with pytest.raises(Exception, match="this key is for rollout mine-1 alone"):
            await refused
    await store.close()


def test_a_key_for_a_rollout_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGL_SERVER_KEY", KEY)
    printed = CliRunner().invoke(agl, ["server-key", "--rollout", "r", "--write"]).output.strip()
    assert Keys(KEY).grant(f"Bearer {printed}") == Grant(write=True, rollout="r")
    both = CliRunner().invoke(agl, ["server-key", "--rollout", "r", "--run", "mine"])
    assert both.exit_code == 2
    assert "name one of --run ID and --rollout ID" in both.output


async def test_the_gateway_is_paused_and_described_by_the_admin_alone(guarded: LightningServer) -> None:
    keys = Keys(KEY)
    for key in (
        keys.issue("mine", write=True, seconds=600),
        keys.issue_for_rollout("mine-1", write=True, seconds=600),
    ):
        headers = {"authorization": f"Bearer {key}"}
        assert status_of(HTTP.post(f"{guarded.url}/v1/gateway/pause", json={}, headers=headers)) == 403
        assert status_of(HTTP.post(f"{guarded.url}/v1/gateway/resume", json={}, headers=headers)) == 403
        assert status_of(HTTP.get(f"{guarded.url}/v1/gateway", headers=headers)) == 403


async def test_no_secret_of_a_call_is_in_logs_or_the_store(
    guarded: LightningServer, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    key = Keys(KEY).issue_for_rollout("mine-1", write=True, seconds=600)
    told = {"model": "m", "messages": [{"role": "user", "content": f"My key is {KEY}"}]}
    assert call(guarded, key=key, body=told).status_code == 200
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (KEY, key):
        assert secret not in caplog.text
        assert secret.encode() not in stored
    assert b"My key is [redacted]" in stored


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"{", "application/json", 400, "the body is no JSON"),
        (b"", "application/json", 400, "the body is no JSON"),
        (b"[1]", "application/json", 400, "the body is no JSON object"),
        (b'{"model": "\xff"}', "application/json", 400, "the body is no JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is no JSON"),
        (json.dumps(ASKED).encode(), "text/plain", 415, "expected a body of the content type application/json"),
        (b'{"model": "' + b"x" * 70_000 + b'"}', "application/json", 413, "the body is larger than 64 KiB"),
    ],
)
def test_a_body_that_is_none_is_refused(
    serve: Callable[..., LightningServer],
    upstream: StubServer,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    kind: str,
    status: int,
    says: str,
) -> None:
    if status == 413:
        monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 64 * 1024)
    server = serve(upstreams=[upstream.base_url])
    refused = HTTP.post(f"{server.url}/v1/chat/completions", content=content, headers={"content-type": kind})
    assert status_of(refused) == status
    assert says in refused.json()["error"]["message"]
    assert upstream.requests == []


def test_numbers_that_json_cannot_hold_are_refused_for_a_rollout(
    serve: Callable[..., LightningServer], upstream: StubServer
) -> None:
    server = serve(upstreams=[upstream.base_url])
    refused = HTTP.post(
        f"{server.url}/v1/chat/completions", content=b'{"seed": NaN}', headers={"content-type": "application/json"}
    )
    assert status_of(refused) == 400


def test_a_client_that_is_slow_with_its_body_is_let_go(
    serve: Callable[..., LightningServer], upstream: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    server = serve(upstreams=[upstream.base_url])
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")


def test_what_waits_for_a_paused_gateway_goes_on_when_it_is_resumed(
    serve: Callable[..., LightningServer], upstream: StubServer
) -> None:
    server = serve(upstreams=[upstream.base_url])
    held = threading.Event()
    upstream.reply(text("Old.", hold=held), text("New."))
    with ThreadPoolExecutor(3) as pool:
        under_way = pool.submit(call, server)
        until(lambda: upstream.requests != [])
        late = HTTP.post(f"{server.url}/v1/gateway/pause", json={"timeout": 0})
        assert status_of(late) == 409
        assert "1 calls are still under way after 0 s" in late.json()["error"]["message"]
        waiting = pool.submit(call, server)
        pausing = pool.submit(HTTP.post, f"{server.url}/v1/gateway/pause", json={"timeout": 20}, timeout=30)
        held.set()
        drained = pausing.result().json()
        assert (drained["paused"], drained["in_flight"]) == (True, 0)
        assert under_way.result().json()["choices"][0]["message"]["content"] == "Old."
        assert (len(upstream.requests), waiting.done()) == (1, False)
        assert HTTP.post(f"{server.url}/v1/gateway/resume", json={}).json()["paused"] is False
        assert waiting.result().json()["choices"][0]["message"]["content"] == "New."


async def test_a_pause_lapses_where_nobody_resumes() -> None:
    gate = Gate()
    await gate.pause(timeout=0, lapses_after=0.01)
    assert gate.paused
    async with asyncio.timeout(10), gate.passing():
        assert not gate.paused


@pytest.mark.parametrize("body", [{"timeout": -1}, {"timeout": "1"}, {"lapses_after": 0}, {"forever": True}])
def test_a_pause_that_is_none_is_refused(server: LightningServer, body: dict[str, Any]) -> None:
    assert status_of(HTTP.post(f"{server.url}/v1/gateway/pause", json=body)) == 400


def test_without_a_key_only_this_machine_is_answered(server: LightningServer) -> None:
    body, kind = json.dumps(ASKED), {"content-type": "application/json", "host": "evil.example"}
    assert status_of(HTTP.post(f"{server.url}/v1/chat/completions", content=body, headers=kind)) == 403
