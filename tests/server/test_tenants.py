"""Every route is described, and on each of them whoever has a key for one run sees nothing of another."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.routing import Route
from store_records import FOR_EVER, a_rollout, a_run
from stub_server import StubServer

from agentlightning.records import Task
from agentlightning_server import wire
from agentlightning_server.keys import Keys
from agentlightning_server.openapi import TABLE, Described, describe
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"
SECRET = "only-for-theirs"
BODIES: dict[str, Any] = {
    "/v1/feedback": {"rollout_id": "theirs-1", "thumbs": "up"},
    "/v1/training": {"config": {}, "tasks": []},
}
"""Of routes whose body names something; any other gets the fields of a model call."""
OPEN = ("/health", "/openapi.json")
OWN = ("/v1/session", "/v1/store/runs", "/v1/store/heartbeat", "/v1/store/flush", "/v1/models")
"""What anybody with a key may ask: it is answered of his own, or is nobody's."""


@pytest.fixture
def guarded(serve: Callable[..., LightningServer], upstream: StubServer, tmp_path: Path) -> LightningServer:
    return serve(key=KEY, upstreams=[upstream.base_url], train_in=tmp_path)


@pytest.fixture
async def theirs(guarded: LightningServer) -> AsyncIterator[None]:
    """A run with a rollout that runs, in the same store as ``mine``."""
    admin = RemoteStore(guarded.url, key=KEY)
    await admin.open_run(a_run("mine"))
    await admin.open_run(a_run("theirs", config={"agent": SECRET}))
    await admin.add_tasks("theirs", [Task(id="task", input=SECRET)])
    await admin.enqueue([a_rollout("theirs-1", run_id="theirs")])
    await admin.lease("w", ids=["theirs-1"], seconds=FOR_EVER)
    yield
    await admin.close()


def test_every_route_is_described(guarded: LightningServer) -> None:
    routes = {
        (method.lower(), route.path)
        for route in guarded.app.starlette.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {(one.method, re.sub("^/v1/store/.*", "/v1/store/{method}", one.path)) for one in TABLE}
    assert described == routes
    assert httpx.get(f"{guarded.url}/openapi.json").json() == describe()


def ask(server: LightningServer, one: Described, key: str | None) -> httpx.Response:
    """A request that names what is of the run ``theirs``, wherever it can."""
    path = one.path.replace("{rollout}", "theirs-1").replace("{attempt:int}", "1").replace("{id}", "0123456789ab")
    headers = {wire.SESSION: "1" * 32} | ({"authorization": f"Bearer {key}"} if key else {})
    params = {"run": "theirs"} if one.query is not None else {}
    if one.content_type == wire.CONTENT_TYPE:
        content = msgspec.msgpack.encode(_arguments(one.path.rpartition("/")[2]))
    else:
        content = msgspec.json.encode(BODIES.get(one.path, {"model": "m", "messages": [], "input": "", "prompt": ""}))
    if one.body is not None:
        headers["content-type"] = one.content_type
    with httpx.Client(timeout=30) as client:
        sent = content if one.body is not None else None
        return client.request(one.method, server.url + path, headers=headers, params=params, content=sent)


def _arguments(method: str) -> dict[str, Any]:
    from server.test_keys import ARGUMENTS

    from agentlightning.records import encode

    return dict(msgspec.msgpack.decode(encode(ARGUMENTS[method]("theirs", "theirs-1"))))


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("write", [False, True])
def test_whoever_has_a_key_for_one_run_reaches_nothing_of_another(
    guarded: LightningServer, upstream: StubServer, write: bool
) -> None:
    key = Keys(KEY).issue("mine", write=write, seconds=600)
    for one in TABLE:
        answer = ask(guarded, one, key)
        assert SECRET not in answer.text, one.path
        if one.path in OPEN or one.path in OWN:
            assert answer.status_code < 400 or answer.status_code == 403, one.path
        else:
            assert answer.status_code == 403, (one.path, answer.text)
    assert [request.path for request in upstream.requests] == ["/v1/models"]


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("key", [None, "a-wrong-key-0123456789"])
def test_without_a_key_nothing_is_answered(guarded: LightningServer, upstream: StubServer, key: str | None) -> None:
    statuses = {one.path: ask(guarded, one, key).status_code for one in TABLE if one.path not in OPEN}
    assert set(statuses.values()) == {401}, statuses
    assert not upstream.requests
