"""What is wrong with a request is said by its status and in words; nothing that a client sends breaks the server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_records import a_rollout, a_run

from agentlightning.records import encode
from agentlightning.store.base import Store
from agentlightning_server import bodies, wire
from agentlightning_server.errors import ServerError
from agentlightning_server.methods import METHODS
from agentlightning_server.server import LightningServer

SESSION = {wire.SESSION: "1" * 32, wire.CLIENT: "box:7"}


def post(server: LightningServer, method: str, body: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{server.url}/v1/store/{method}"
    return httpx.post(url, content=body, headers={"content-type": wire.CONTENT_TYPE, **SESSION, **named})


def call(server: LightningServer, method: str, **arguments: Any) -> httpx.Response:
    return post(server, method, encode(arguments))


def test_every_method_of_a_store_is_served() -> None:
    made_of_others = {"close", "published"}
    public = {name for name in vars(Store) if not name.startswith("_")}
    assert public - made_of_others == METHODS.keys()


def test_the_readme_names_every_method() -> None:
    readme = (Path(__file__).parents[2] / "adapters" / "server" / "README.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in readme] == []


def test_whoever_asks_hears_that_the_server_lives(server: LightningServer) -> None:
    answer = httpx.get(f"{server.url}/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


NESTED = b"\x91" * 100_000
BAD: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("run", b"", "does not hold the arguments of run"),
    "no MessagePack": ("run", b"\xc1", "does not hold the arguments"),
    "half of it": ("run", b"\x81\xa6run_id", "does not hold the arguments"),
    "nested without end": ("run", b"\x81\xa6run_id" + NESTED, "does not hold the arguments"),
    "an output nested without end": (
        "finish",
        encode({"rollout": {**msgspec.to_builtins(a_rollout("a")), "output": 0}})[:-1] + NESTED,
        "does not hold the arguments",
    ),
    "a missing argument": ("run", encode({}), "run_id"),
    "an unknown argument": ("run", encode({"run_id": "r", "step": 1}), "step"),
    "an argument of another type": ("run", encode({"run_id": 7}), "run_id"),
    "a status that there is none of": ("close_run", encode({"run_id": "r", "status": "done"}), "status"),
    "an array of half a number": ("run", b"\x81\xa6run_id\xc7\x03\x01abc", "does not hold the arguments"),
    "an integer beyond 64 bits": (
        "add_spans",
        encode({"spans": [{"id": "s", "rollout_id": "a", "kind": "llm", "name": "chat", "index": 2**63}]}),
        "spans.index: expected an integer of 64 bits",
    ),
    "a time that is no number": (
        "add_metrics",
        encode({"metrics": [{"run_id": "r", "step": 1, "name": "n", "value": 1.0, "at": float("nan")}]}),
        "metrics.at: expected a number",
    ),
    "a limit beyond 64 bits": ("lease", encode({"worker": "w", "limit": 2**64 - 1}), "limit"),
}


@pytest.mark.parametrize(("method", "body", "says"), BAD.values(), ids=BAD.keys())
def test_a_malformed_body_is_400_and_says_why(server: LightningServer, method: str, body: bytes, says: str) -> None:
    answer = post(server, method, body)
    assert answer.status_code == 400
    assert says in answer.json()["message"]
    assert call(server, "rollouts", run_id="run").status_code == 200, "and others are served"


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"agentlightning_session": "mine"}, "32 hexadecimal digits"),
        ({"agentlightning_request": "first"}, "agentlightning-request: expected a whole number"),
        ({"agentlightning_answered": "-1"}, "agentlightning-answered: expected a whole number"),
    ],
)
def test_a_malformed_header_is_400_and_says_why(server: LightningServer, headers: dict[str, str], says: str) -> None:
    answer = post(server, "flush", encode({}), **headers)
    assert (answer.status_code, says in answer.json()["message"]) == (400, True)


def test_an_unknown_method_is_404(server: LightningServer) -> None:
    for name in ("drop", "close", "_call", "__init__", "published"):
        answer = call(server, name)
        assert (answer.status_code, name in answer.json()["message"]) == (404, True)
    assert httpx.get(f"{server.url}/v1").status_code == 404
    assert httpx.get(f"{server.url}/v1/store/runs").status_code == 405


def test_another_content_type_is_415(server: LightningServer) -> None:
    assert post(server, "runs", b"\x80", content_type="text/plain").status_code == 415


def test_a_body_that_is_too_large_is_413_also_where_its_length_is_not_said(
    server: LightningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 1000)
    for body in (b"x" * 1001, iter([b"x" * 600] * 2)):
        url = f"{server.url}/v1/store/runs"
        answer = httpx.post(url, content=body, headers={"content-type": wire.CONTENT_TYPE, **SESSION})
        assert (answer.status_code, "send less at once" in answer.json()["message"]) == (413, True)


def test_a_body_that_does_not_come_is_408(server: LightningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
        head = "POST /v1/store/runs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n"
        connection.sendall(head.encode() + b"half")
        assert b" 408 " in connection.recv(1000).splitlines()[0]


def test_more_than_can_wait_is_503_and_may_be_sent_again(
    server: LightningServer, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., LightningServer]
) -> None:
    monkeypatch.setattr(bodies, "MAX_WAITING_BYTES", 100)
    answer = post(serve(), "runs", b"x" * 101)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_one_session_too_many_is_503(serve: Callable[..., LightningServer]) -> None:
    small = serve(max_sessions=1)
    assert call(small, "flush").status_code == 200
    answer = post(small, "flush", b"\x80", agentlightning_session="2" * 32)
    assert (answer.status_code, "--max-sessions" in answer.json()["message"]) == (503, True)


def test_what_another_holds_is_409_and_what_a_store_refuses_422(server: LightningServer) -> None:
    assert call(server, "open_run", run=a_run()).status_code == 200
    busy = post(server, "open_run", encode({"run": a_run()}), agentlightning_session="2" * 32)
    assert (busy.status_code, busy.json()["error"]) == (409, "StoreBusyError")
    refused = call(server, "finish", rollout=a_rollout("a"))
    assert refused.status_code == 200, "nobody has leased it"
    unknown = call(server, "rollout_with_spans", rollout_id="nobody")
    assert (unknown.status_code, unknown.json()["error"]) == (422, "StoreError")


@given(method=st.sampled_from(sorted(METHODS)), body=st.binary(max_size=200))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_break_the_server(server: LightningServer, method: str, body: bytes) -> None:
    assert post(server, method, body).status_code in (200, 400, 422)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data(), method=st.sampled_from(sorted(METHODS.keys() - {"wait"})))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_values_break_the_server(server: LightningServer, method: str, data: st.DataObject) -> None:
    names = METHODS[method].arguments.__struct_fields__
    arguments = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, PLAIN)))
    assert post(server, method, encode(arguments)).status_code in (200, 400, 409, 422)
    assert call(server, "flush").status_code == 200, "what was handed over can be written"


def test_without_a_key_only_this_machine_is_answered_and_by_its_own_name(server: LightningServer) -> None:
    assert post(server, "runs", b"\x80", host="localhost").status_code == 200
    answer = post(server, "runs", b"\x80", host="rebound.example.com")
    assert (answer.status_code, "without a key" in answer.json()["message"]) == (403, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_a_key_nothing_but_loopback_is_bound(host: str) -> None:
    with pytest.raises(ServerError, match=r"there is no key: set AGL_SERVER_KEY .* or leave --host at 127\.0\.0\.1"):
        LightningServer("sqlite:///never-made.db", host=host)


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"cannot listen on 127.0.0.1:{port}: .* --port names another port"):
            LightningServer("sqlite:///never-made.db", port=port)


@pytest.mark.parametrize("store", ["http://127.0.0.1:1", "store.db", "postgres://x"])
def test_a_store_that_is_no_file_is_refused(store: str) -> None:
    with pytest.raises(ServerError, match="write sqlite:///PATH"):
        LightningServer(store)
