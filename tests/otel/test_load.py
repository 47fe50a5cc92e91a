"""Under load: memory is bounded in bytes, and nobody waits for somebody else's large request."""

from __future__ import annotations

import gc
import gzip
import http.client
import socket
import threading
import urllib.error
import urllib.request
import weakref

import pytest
from google.rpc.status_pb2 import Status

from agentlightning.errors import StoreError
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_otel import receiver, server
from agentlightning_otel.bounded import Bounded
from agentlightning_otel.errors import PayloadError

CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "solver"}
PLAIN = {"http.request.method": "GET"}
SECONDS = 30.0


def begin(endpoint: str, length: int, part: bytes) -> http.client.HTTPConnection:
    """A request of which only a part is sent."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=SECONDS)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("Content-Type", "application/x-protobuf")
    connection.putheader("Content-Length", str(length))
    connection.endheaders(part)
    return connection


def wait_until(condition) -> None:
    for _ in range(int(SECONDS / 0.01)):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen")


def test_beyond_the_limit_of_bytes_a_request_is_to_be_sent_again_and_then_is_taken(receiving, otlp, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING_BYTES", 10_000)
    request = otlp.request(otlp.span(1, "chat", {**CALL, "long": "x" * 5000}))
    with receiving.server(settle=1000.0) as send:
        held = begin(send.endpoint, 9_000, b"\n" * 8_000)
        wait_until(lambda: send(request).status == 503)
        refused = send(request)
        held.close()
        wait_until(lambda: send(request).status == 200)

    assert refused.headers["Retry-After"] == str(server.RETRY_SECONDS)
    assert "wait to be recorded; send it again later" in Status.FromString(refused.body).message
    assert len(receiving.one()[1]) == 1


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(receiving, otlp, monkeypatch):
    monkeypatch.setattr(server, "BODY_SECONDS", 0.05)
    with receiving.server() as send:
        connection = begin(send.endpoint, 100, b"\n")
        response = connection.getresponse()
        status, body = response.status, response.read()
        connection.close()
    assert (status, "did not come within" in Status.FromString(body).message) == (408, True)


def test_a_client_that_leaves_in_the_middle_is_no_error(receiving, otlp, caplog):
    with receiving.server(settle=1000.0) as send:
        begin(send.endpoint, 100, b"\n").close()
        assert send(otlp.request(otlp.span(1, "chat", CALL))).status == 200
    assert "Exception" not in caplog.text


def test_a_large_request_holds_up_only_large_ones(receiving, otlp, monkeypatch):
    """The large one is held where it is read; small ones pass it, and /health answers."""
    monkeypatch.setattr(server, "LARGE_BYTES", 10_000)
    reading, go_on = threading.Event(), threading.Event()
    read = server.read_traces

    def slowly(request):
        if request.ByteSize() > 10_000:
            reading.set()
            assert go_on.wait(SECONDS)
        return read(request)

    monkeypatch.setattr(server, "read_traces", slowly)
    large = [otlp.request(otlp.span(n, "large", {**CALL, "x": "x" * 20_000}, trace=f"{n:032x}")) for n in (1, 2, 3)]
    statuses = []
    with receiving.server(settle=1000.0) as send:
        threads = [threading.Thread(target=lambda it=it: statuses.append(send(it).status)) for it in large]
        for thread in threads:
            thread.start()
        assert reading.wait(SECONDS)
        for number in range(10, 30):
            assert send(otlp.request(otlp.span(1, "small", CALL, trace=f"{number:032x}"))).status == 200
        with urllib.request.urlopen(f"{send.endpoint}/health", timeout=SECONDS) as answer:
            assert answer.read() == b'{"status":"ok"}'
        go_on.set()
        for thread in threads:
            thread.join()

    assert statuses == [200, 200, 200]
    assert len(receiving.read().rollouts) == 23


def test_health_is_answered_while_the_recording_thread_is_busy(receiving, otlp, monkeypatch):
    """Nothing of it runs on the event loop that answers."""
    busy, go_on = threading.Event(), threading.Event()
    enqueue = SQLiteStore.enqueue

    async def slowly(self, rollouts):
        busy.set()
        assert go_on.wait(SECONDS)  # without giving way to others of its loop
        return await enqueue(self, rollouts)

    monkeypatch.setattr(SQLiteStore, "enqueue", slowly)
    statuses = []
    with receiving.server(settle=1000.0) as send:
        request = otlp.request(otlp.span(1, "chat", CALL))
        sending = threading.Thread(target=lambda: statuses.append(send(request).status))
        sending.start()
        assert busy.wait(SECONDS)
        try:
            with urllib.request.urlopen(f"{send.endpoint}/health", timeout=5) as answer:
                assert answer.status == 200
        finally:
            go_on.set()
            sending.join()
    assert statuses == [200]


@pytest.mark.parametrize("refuse", [PayloadError("not so"), StoreError("disk full")], ids=["unreadable", "disk full"])
def test_what_was_read_of_a_refused_request_is_let_go_at_once(receiving, otlp, monkeypatch, refuse):
    """No reference cycle keeps it until the garbage collector comes."""

    class Content:
        pass

    read: list[weakref.ref] = []

    def refusing(request):
        content = Content()
        read.append(weakref.ref(content))
        raise refuse

    monkeypatch.setattr(server, "read_traces", refusing)
    gc.disable()
    try:
        with receiving.server() as send:
            assert send(otlp.request(otlp.span(1, "chat", CALL))).status in (400, 503)
            refuse.__traceback__ = None
            wait_until(lambda: read[0]() is None)
    finally:
        gc.enable()


def test_of_open_rollouts_too_many_are_finished_as_they_stand_the_oldest_first(receiving, otlp, monkeypatch, caplog):
    monkeypatch.setattr(receiver, "MAX_OPEN_ROLLOUTS", 3)
    traces = [f"{number:032x}" for number in range(1, 9)]
    with receiving.server(settle=1000.0) as send:
        for trace in traces:
            assert send(otlp.request(otlp.span(2, "chat", CALL, parent=1, trace=trace))).status == 200
        statuses = [rollout.status for rollout in receiving.read().rollouts]
        assert statuses == ["succeeded"] * 5 + ["running"] * 3
        send(otlp.request(otlp.span(3, "chat", CALL, parent=2, trace=traces[0])))
    assert [len(spans) for spans in receiving.read().spans.values()] == [2] + [1] * 7
    assert "rollouts are finished as they stand: more than 3 are open" in caplog.text


def test_a_small_body_that_unpacks_to_a_large_one_takes_its_turn_with_them(receiving, otlp, monkeypatch):
    monkeypatch.setattr(server, "LARGE_BYTES", 10_000)
    body = gzip.compress(otlp.request(otlp.span(1, "chat", {**CALL, "x": "x" * 50_000})).SerializeToString())
    assert len(body) < 10_000
    with receiving.server(settle=1000.0) as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", body, Content_Encoding="gzip")
    assert answer.status == 200
    assert len(receiving.one()[1][0].attributes["x"]) == 50_000


def test_a_gzip_body_may_have_several_members(receiving, otlp):
    body = otlp.request(otlp.span(1, "chat", CALL), otlp.span(2, "chat", CALL)).SerializeToString()
    packed = gzip.compress(body[:50]) + gzip.compress(body[50:]) + b"\0\0"
    with receiving.server(settle=1000.0) as send:
        assert otlp.post(f"{send.endpoint}/v1/traces", packed, Content_Encoding="gzip").status == 200
    assert len(receiving.one()[1]) == 2


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_memory_is_bounded_in_bytes_the_oldest_goes_first():
    kept = Bounded(100, 1000.0)
    assert [kept.put(key, key, 40) for key in ("a", "b", "c")] == [[], [], ["a"]]
    assert (kept.size, kept.get("a"), kept.get("b"), kept.get("c")) == (80, None, "b", "c")

    kept.put("b", "more", 80)
    assert (kept.size, kept.get("c"), kept.get("b")) == (80, None, "more")
    assert kept.put("huge", "huge", 1000) == ["more", "huge"]
    assert (kept.size, len(kept)) == (0, 0)


def test_memory_is_bounded_in_age():
    clock = Clock()
    kept = Bounded(100, 10.0, clock)
    kept.put("a", "a", 1)
    clock.now = 9.0
    kept.put("b", "b", 1)
    assert kept.get("a") == "a"
    clock.now = 11.0
    assert kept.put("c", "c", 1) == []
    assert (kept.get("a"), kept.get("b"), kept.size) == (None, "b", 2)


def test_of_spans_that_wait_for_a_model_too_many_are_let_go_with_a_warning(receiving, otlp, monkeypatch, caplog):
    monkeypatch.setattr(receiver, "MAX_PENDING_BYTES", 10_000)
    long = {**PLAIN, "long": "x" * 3000}
    roots = [otlp.request(otlp.span(1, "GET", long, trace=f"{number:032x}")) for number in (1, 2, 3)]
    calls = [otlp.request(otlp.span(2, "chat", CALL, parent=1, trace=f"{number:032x}")) for number in (1, 3)]
    receiving.receive(*roots, *calls)

    assert "1 spans of traces without a model were let go" in caplog.text
    spans = receiving.read().spans
    assert {trace: [span.name for span in spans[trace]] for trace in spans} == {
        f"{1:032x}": ["chat"],
        f"{3:032x}": ["GET", "chat"],
    }


def test_a_span_of_20_mib_waits_for_its_model_as_any_other(receiving, otlp):
    large = otlp.span(1, "POST /ask", {"http.request.body": "x" * (20 * 1024**2)})
    receiving.receive(otlp.request(large), otlp.request(otlp.span(2, "chat", CALL, parent=1)))

    _, spans = receiving.one()
    assert [(span.name, len(span.attributes.get("http.request.body", ""))) for span in spans] == [
        ("POST /ask", 20 * 1024**2),
        ("chat", 0),
    ]


def test_open_rollouts_that_are_not_in_memory_are_read_from_the_store(receiving, otlp, monkeypatch):
    monkeypatch.setattr(receiver, "MAX_OPEN_BYTES", 1)
    traces = [f"{number:032x}" for number in range(1, 9)]

    def part(number, parent, attributes, **more):
        return [
            otlp.request(otlp.span(number, f"s{number}", attributes, parent=parent, trace=it, **more)) for it in traces
        ]

    scored = {"at": (100.0, 110.0), "events": [otlp.evaluation("correct", 1.0)]}
    receiving.receive(*part(2, 1, CALL), *part(3, 2, PLAIN), *part(1, None, AGENT, **scored), *part(2, 1, CALL))

    recorded = receiving.read()
    assert [rollout.id for rollout in recorded.rollouts] == traces
    for rollout in recorded.rollouts:
        assert (rollout.status, rollout.outcome) == ("succeeded", 1.0)
        outline = [(span.index, span.name, span.agent) for span in recorded.spans[rollout.id]]
        assert outline == [(0, "solver", "solver"), (1, "correct", "solver"), (2, "s2", "solver"), (3, "s3", "solver")]


def test_many_traces_in_one_request_are_opened_together(receiving, otlp, monkeypatch):
    """A transaction of the store for each would take longer than an exporter waits."""
    calls = []
    enqueue = SQLiteStore.enqueue

    async def counted(self, rollouts):
        calls.append(len(rollouts))
        return await enqueue(self, rollouts)

    monkeypatch.setattr(SQLiteStore, "enqueue", counted)
    spans = [otlp.span(1, "chat", CALL, trace=f"{number:032x}") for number in range(1, 301)]
    receiving.receive(otlp.request(*spans))

    assert calls == [300]
    assert {rollout.status for rollout in receiving.read().rollouts} == {"succeeded"}


def test_a_port_answers_other_things_with_an_error(receiving):
    with receiving.server() as send:
        host, port = send.endpoint.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400")
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(f"{send.endpoint}/v1/traces", timeout=SECONDS)
