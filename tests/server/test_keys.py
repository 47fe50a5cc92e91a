"""A key opens what it was made for, on every route; and no secret is told on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from store_records import FOR_EVER, a_live_run, a_promotion, a_recorded, a_rollout, a_run, a_span

from agentlightning.errors import StoreError
from agentlightning.records import Prompt, Reward, Task, decode, encode
from agentlightning.store import Checkpoint, Metric
from agentlightning.store import open_store as open_by_url
from agentlightning_server import wire
from agentlightning_server.errors import RequestError, ServerError
from agentlightning_server.keys import EVERYTHING, Grant, Keys
from agentlightning_server.methods import METHODS
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

KEY = "a-key-of-the-tests-0123456789"

ARGUMENTS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "open_run": lambda run, rollout: {"run": a_run(run)},
    "update_run": lambda run, rollout: {"run": a_run(run)},
    "close_run": lambda run, rollout: {"run_id": run, "status": "failed"},
    "runs": lambda run, rollout: {},
    "run": lambda run, rollout: {"run_id": run},
    "add_tasks": lambda run, rollout: {"run_id": run, "tasks": [Task(id="t", input=1)]},
    "tasks": lambda run, rollout: {"run_id": run},
    "enqueue": lambda run, rollout: {"rollouts": [a_rollout(rollout, run_id=run)]},
    "lease": lambda run, rollout: {"worker": "w", "ids": [rollout]},
    "heartbeat": lambda run, rollout: {"worker": "w"},
    "finish": lambda run, rollout: {"rollout": _finished(rollout, run)},
    "wait": lambda run, rollout: {"ids": [rollout], "seconds": 0.0},
    "add_rewards": lambda run, rollout: {"rollout_id": rollout, "attempt": 1, "rewards": [Reward(name="r", value=1.0)]},
    "add_recorded": lambda run, rollout: {"run": a_live_run(run), "recorded": [a_recorded(rollout, run_id=run)]},
    "rollouts": lambda run, rollout: {"run_id": run},
    "summary": lambda run, rollout: {"run_id": run},
    "tries": lambda run, rollout: {"run_id": run},
    "wait_for_ended": lambda run, rollout: {"run_id": run, "more_than": 0, "seconds": 0.0},
    "rollout": lambda run, rollout: {"rollout_id": rollout},
    "rollout_with_spans": lambda run, rollout: {"rollout_id": rollout},
    "add_spans": lambda run, rollout: {"spans": [a_span(rollout)]},
    "spans": lambda run, rollout: {"rollout_id": rollout},
    "add_metrics": lambda run, rollout: {"metrics": [Metric(run_id=run, step=1, name="loss", value=1.0)]},
    "metrics": lambda run, rollout: {"run_id": run},
    "flush": lambda run, rollout: {},
    "put_resource": lambda run, rollout: {"run_id": run, "resource": Prompt(name="p", template="t")},
    "resources": lambda run, rollout: {"run_id": run},
    "resource": lambda run, rollout: {"run_id": run, "digest": "d"},
    "promotions": lambda run, rollout: {"target": run},
    "put_promotions": lambda run, rollout: {"target": run, "promotions": [a_promotion(run)], "revision": 0},
    "wait_for_promotions": lambda run, rollout: {"target": run, "newer_than": 0, "seconds": 0.0},
    "put_checkpoint": lambda run, rollout: {"checkpoint": Checkpoint(run_id=run, step=1)},
    "last_checkpoint": lambda run, rollout: {"run_id": run},
}
"""Of every method, for one run and one rollout."""
WITHOUT_NAMES = {"runs", "heartbeat", "flush"}


def _finished(rollout: str, run: str) -> Any:
    made = a_rollout(rollout, run_id=run)
    made.status, made.attempt = "succeeded", 1
    return made


@pytest.fixture
def guarded(serve: Callable[..., LightningServer]) -> LightningServer:
    return serve(key=KEY)


@pytest.fixture
async def two_runs(guarded: LightningServer) -> None:
    """Runs ``mine`` and ``theirs``, with a rollout each."""
    admin = RemoteStore(guarded.url, key=KEY)
    for run in ("mine", "theirs"):
        await admin.open_run(a_run(run))
        await admin.enqueue([a_rollout(f"{run}-1", run_id=run)])
    await admin.close()


def ask(server: LightningServer, method: str, arguments: dict[str, Any], key: str | None) -> httpx.Response:
    headers = {"content-type": wire.CONTENT_TYPE, wire.SESSION: "1" * 32}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    body = encode(METHODS[method].arguments(**arguments))
    return httpx.post(f"{server.url}/v1/store/{method}", content=body, headers=headers)


def test_every_method_is_tried_here() -> None:
    assert ARGUMENTS.keys() == METHODS.keys()


@pytest.mark.usefixtures("two_runs")
def test_on_every_route_a_key_reaches_its_own_run_and_no_other(guarded: LightningServer) -> None:
    keys = Keys(KEY)
    reading = keys.issue("mine", write=False, seconds=600)
    writing = keys.issue("mine", write=True, seconds=600)
    for name, method in METHODS.items():
        own, foreign = ARGUMENTS[name]("mine", "mine-1"), ARGUMENTS[name]("theirs", "theirs-1")
        if name not in WITHOUT_NAMES:
            for key in (reading, writing):
                refused = ask(guarded, name, foreign, key)
                assert refused.status_code == 403, name
                assert refused.json()["error"] == "RequestError", name
        assert ask(guarded, name, own, writing).status_code not in (401, 403), name
        allowed = ask(guarded, name, own, reading).status_code
        assert (allowed == 403) == (method.access == "write"), name


@pytest.mark.usefixtures("two_runs")
def test_on_every_route_no_key_a_wrong_one_and_an_expired_one_open_nothing(guarded: LightningServer) -> None:
    keys = {
        None: "a key is missing",
        "wrong-0123456789": "does not know this key",
        KEY + "0": "does not know this key",
        "eyJhbGciOiJub25lIn0.eyJydW4iOiJtaW5lIiwid3JpdGUiOnRydWUsImV4cCI6OTk5OTk5OTk5OX0.": "does not know this key",
        Keys("another-key-0123456789").issue("mine", write=True, seconds=600): "does not know this key",
        Keys(KEY).issue("mine", write=True, seconds=-1): "this key expired at",
    }
    for key, says in keys.items():
        for name in METHODS:
            refused = ask(guarded, name, ARGUMENTS[name]("mine", "mine-1"), key)
            assert refused.status_code == 401, (name, key)
            assert says in refused.json()["message"]
            assert refused.headers["www-authenticate"] == "Bearer"
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        assert httpx.post(f"{guarded.url}/v1/session", headers=headers).status_code == 401
        assert httpx.delete(f"{guarded.url}/v1/session", headers=headers).status_code == 401
        assert httpx.post(f"{guarded.url}/v1/feedback", json={}, headers=headers).status_code == 401


@pytest.mark.usefixtures("two_runs")
async def test_a_key_of_a_run_sees_and_leases_that_run_alone(guarded: LightningServer) -> None:
    store = RemoteStore(guarded.url, key=Keys(KEY).issue("mine", write=True, seconds=600))
    assert [run.id for run in await store.runs()] == ["mine"]
    assert [rollout.id for rollout in await store.lease("w", limit=9, seconds=FOR_EVER)] == ["mine-1"]
    with pytest.raises(StoreError, match="this key is for run mine alone, and run asks for run theirs"):
        await store.run("theirs")
    with pytest.raises(StoreError, match="rollout theirs-1 is none of it"):
        await store.spans("theirs-1")
    assert await store.rollout("nobody") is None
    await store.close()


@pytest.mark.usefixtures("two_runs")
async def test_a_key_of_a_run_takes_no_rollout_of_another_for_its_own(guarded: LightningServer) -> None:
    store = RemoteStore(guarded.url, key=Keys(KEY).issue("mine", write=True, seconds=600))
    with pytest.raises(StoreError, match="rollout theirs-1 is none of it"):
        await store.enqueue([a_rollout("theirs-1", run_id="mine")])
    store.add_spans([a_span("not-yet-there")])
    with pytest.raises(StoreError, match="rollout not-yet-there is none of it"):
        await store.flush()
    with pytest.raises(StoreError, match="rollout not-yet-there is none of it"):
        await store.close()


@pytest.mark.usefixtures("two_runs")
async def test_a_key_of_a_run_renews_no_lease_of_another_run(guarded: LightningServer) -> None:
    admin = RemoteStore(guarded.url, key=KEY)
    store = RemoteStore(guarded.url, key=Keys(KEY).issue("mine", write=True, seconds=600))
    await admin.lease("w", ids=["theirs-1"], seconds=0)
    await store.heartbeat("w", seconds=FOR_EVER)
    assert [rollout.id for rollout in await admin.lease("other", ids=["theirs-1"])] == ["theirs-1"]
    await store.close()
    await admin.close()


async def test_the_key_of_the_environment_is_sent(guarded: LightningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="a key is missing: set AGL_SERVER_KEY"):
        open_by_url(guarded.url)
    monkeypatch.setenv("AGL_SERVER_KEY", KEY)
    store = open_by_url(guarded.url)
    assert await store.runs() == []
    await store.close()


async def test_no_secret_is_in_logs_errors_or_the_store(
    guarded: LightningServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = Keys(KEY).issue("mine", write=True, seconds=600)
    caplog.set_level(logging.DEBUG)
    store = RemoteStore(guarded.url, key=KEY)
    scoped = RemoteStore(guarded.url, key=token)
    await store.enqueue([a_rollout("a", run_id="mine")])
    [leased] = await scoped.lease("worker")
    leased.status, leased.output = "succeeded", {"environment": [KEY, token]}
    span = a_span("a")
    span.attributes = {"header": f"Bearer {token}", "key": KEY}
    scoped.add_spans([span])
    await scoped.finish(leased)
    with pytest.raises(StoreError) as refused:
        await scoped.run("theirs")
    await scoped.close()
    await store.close()
    told = caplog.text + str(refused.value)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (KEY, token):
        assert secret not in told
        assert secret.encode() not in stored
    assert b"[redacted]" in stored


def test_a_key_in_a_url_is_refused_and_not_told() -> None:
    with pytest.raises(StoreError, match="a key is given in AGL_SERVER_KEY") as refused:
        RemoteStore(f"http://user:{KEY}@127.0.0.1:1")
    assert KEY not in str(refused.value)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ServerError, match="shorter than 16 characters: make one with"):
        Keys("short")


def test_a_key_says_what_it_grants_until_it_expires() -> None:
    keys = Keys(KEY)
    assert keys.grant(f"Bearer {KEY}") == EVERYTHING
    assert keys.grant(f"bearer {keys.issue('r', write=False, seconds=9)}") == Grant("r", False)
    assert keys.grant(f"Bearer {keys.issue('r', write=True, seconds=9)}") == Grant("r", True)
    with pytest.raises(RequestError) as refused:
        keys.grant(f"Bearer {keys.issue('r', write=True, seconds=-time.time())}")
    assert (refused.value.status, "1970-01-01T00:00:00+00:00" in str(refused.value)) == (401, True)
    assert Keys(None).grant(None) == EVERYTHING


def test_what_is_read_over_the_wire_is_what_the_store_gave(guarded: LightningServer) -> None:
    answer = ask(guarded, "open_run", {"run": a_run("mine", seed=3)}, KEY)
    assert decode(answer.content, METHODS["open_run"].result) == a_run("mine", seed=3)
