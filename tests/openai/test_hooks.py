"""Installing into the client, and taking it out again."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading
import time
from urllib.parse import urlsplit

import openai
import pytest
from openai._base_client import AsyncAPIClient, AsyncHttpxClientWrapper, BaseClient, SyncAPIClient
from stub_answers import text
from stub_server import StubServer

from agentlightning_openai import hooks
from agentlightning_openai.adapter import OpenAIAdapter

METHODS = [
    *((owner, name) for owner in (SyncAPIClient, AsyncAPIClient) for name in ("request", "_sleep_for_retry")),
    (BaseClient, "_build_request"),
    (AsyncHttpxClientWrapper, "__del__"),
]


def _methods() -> list[object]:
    return [owner.__dict__[name] for owner, name in METHODS]


def test_uninstalling_restores_the_client_exactly() -> None:
    adapter = OpenAIAdapter()
    adapter.uninstall()  # what a test before this one may have left
    before = _methods()
    adapter.install()
    assert all(now is not then for now, then in zip(_methods(), before, strict=True))
    adapter.uninstall()
    assert all(now is then for now, then in zip(_methods(), before, strict=True))


def test_installing_twice_records_once(rollout, patched, client) -> None:
    OpenAIAdapter().install()
    with rollout():
        client.chat.completions.create(model="m", messages=[])
    assert len(rollout.spans) == 1


def test_installing_from_many_threads_patches_once() -> None:
    before = _methods()
    threads = [threading.Thread(target=hooks.install) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hooks.uninstall()
    assert all(now is then for now, then in zip(_methods(), before, strict=True))


def test_a_later_patch_of_somebody_else_stays(rollout, client, caplog) -> None:
    ours = SyncAPIClient.request
    seen = []

    def theirs(self, *args, **kwargs):
        seen.append(args)
        return ours(self, *args, **kwargs)

    original = vars(SyncAPIClient)["request"].__wrapped__
    SyncAPIClient.request = theirs
    try:
        with caplog.at_level(logging.WARNING):
            hooks.uninstall()
        assert "someone else" in caplog.text
        with rollout():
            client.chat.completions.create(model="m", messages=[])
        assert (len(seen), rollout.spans) == (1, [])
    finally:
        SyncAPIClient.request = original


def test_without_a_client_that_fits_there_is_one_warning(monkeypatch, caplog) -> None:
    monkeypatch.delattr(SyncAPIClient, "request")
    monkeypatch.setattr(hooks, "_warned", False)
    with caplog.at_level(logging.WARNING):
        OpenAIAdapter().install()
        OpenAIAdapter().install()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "neither recorded nor redirected" in caplog.text


def test_an_absent_key_gets_a_placeholder(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    OpenAIAdapter().prepare()
    assert os.environ["OPENAI_API_KEY"] == "agentlightning-placeholder"


def test_a_key_that_is_there_is_left_alone(monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    OpenAIAdapter().prepare()
    assert os.environ["OPENAI_API_KEY"] == "sk-mine"


@pytest.mark.parametrize("agent", [print, object(), "x"])
def test_it_accepts_no_agent(agent) -> None:
    assert not OpenAIAdapter().accepts(agent)


def make(stub: StubServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=stub.base_url, api_key="k", max_retries=0)


async def call(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])


async def drop_a_client(stub: StubServer, connections: int) -> None:
    """Uses a client, and leaves it to the collector of cycles; the count of references does not find it."""
    client = make(stub)
    client.cycle = client
    await asyncio.gather(*(call(client) for _ in range(connections)))


async def test_a_client_collected_as_garbage_stops_no_other_clients_calls(patched, stub: StubServer) -> None:
    """Without the patch some of these calls wait forever for answers that have arrived."""
    await drop_a_client(stub, 64)
    answers = threading.Event()
    stub.reply(*(text("Hello.", hold=answers) for _ in range(60)))
    others = [make(stub) for _ in range(60)]
    waiting = [asyncio.create_task(call(client)) for client in others]
    gc.collect()
    await asyncio.sleep(0.5)
    answers.set()
    _, hanging = await asyncio.wait(waiting, timeout=20)
    for client in others:
        await client.close()
    assert not hanging


async def test_a_client_collected_as_garbage_leaves_no_connection_open(patched, stub: StubServer) -> None:
    server = (urlsplit(stub.base_url).hostname, urlsplit(stub.base_url).port)

    def connections() -> int:
        gc.collect()
        return sum(isinstance(each, socket.socket) and _peer(each) == server for each in gc.get_objects())

    before = connections()
    await drop_a_client(stub, 8)
    deadline = time.monotonic() + 20
    while (left := connections()) > before and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert left <= before


def _peer(each: socket.socket) -> tuple[str, int] | None:
    """What a socket is connected to; None where it is closed, or not connected."""
    try:
        return each.getpeername()
    except OSError:
        return None
