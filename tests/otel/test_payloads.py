"""What is posted is decoded, or refused with the reason."""

from __future__ import annotations

import base64
import gzip
import json
import zlib

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from agentlightning_otel.payloads import PROTOBUF
from agentlightning_otel.values import attributes_of, pairs_of

CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small", "gen_ai.usage.input_tokens": 7}
JSON = "application/json"


def as_otlp_json(request) -> dict:
    """The message in OTLP/JSON: ids in hexadecimal, enumerations as numbers."""
    content = json_format.MessageToDict(request, use_integers_for_enums=True)
    for group in content["resourceSpans"]:
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64decode(span[name]).hex()
    return content


@pytest.fixture
def request_(otlp):
    return otlp.request(
        otlp.span(1, "invoke_agent solver", {"gen_ai.operation.name": "invoke_agent"}, error="it broke"),
        otlp.span(2, "chat small", {**CALL, "list": [1, 2.5, True], "map": {"a": "b"}}, parent=1),
    )


def test_json_says_the_same_as_protobuf(receiving, otlp, request_, tmp_path):
    receiving.receive(request_)
    expected = receiving.one()

    other = type(receiving)(f"sqlite:///{tmp_path}/json.db")
    with other.server(settle=1000.0) as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", json.dumps(as_otlp_json(request_)).encode(), JSON)

    rollout, spans = other.one()
    assert (answer.status, answer.headers["Content-Type"], json.loads(answer.body)) == (200, JSON, {})
    assert spans == expected[1]
    assert (rollout.failure.message, rollout.failure.type) == ("it broke", "agent_error")
    assert spans[1].attributes["list"] == [1, 2.5, True]
    assert spans[1].attributes["map"] == {"a": "b"}


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_bodies_may_be_compressed(receiving, otlp, request_, encoding, pack):
    with receiving.server() as send:
        body = pack(request_.SerializeToString())
        answer = otlp.post(f"{send.endpoint}/v1/traces", body, Content_Encoding=encoding)
    assert answer.status == 200
    assert len(receiving.one()[1]) == 2


def test_a_request_with_nothing_in_it_is_fine(receiving, otlp):
    with receiving.server() as send:
        assert otlp.post(f"{send.endpoint}/v1/traces", b"").status == 200
        assert otlp.post(f"{send.endpoint}/v1/traces", b"{}", JSON).status == 200


BAD = {
    "garbage": (b"\xff\xff garbage", "", {}, 400, "no ExportTraceServiceRequest in protobuf"),
    "json as protobuf": (b'{"resourceSpans": []}', "", {}, 400, "it looks like JSON: send it as application/json"),
    "no json": (b'{"resourceSpans": [', JSON, {}, 400, "is not JSON"),
    "a list": (b"[]", JSON, {}, 400, "is a JSON list: expected an object with resourceSpans"),
    "other keys": (b'{"spans": [], "id": 1}', JSON, {}, 400, "has no resourceSpans; its keys: spans, id"),
    "wrong type": (b'{"resourceSpans": 3}', JSON, {}, 400, "resourceSpans"),
    "nested too deep": (b'{"resourceSpans": ' + b"[" * 100_000, JSON, {}, 400, "the body"),
    "not gzip": (b"plain", "", {"Content_Encoding": "gzip"}, 400, "is not gzip"),
    "cut off": (gzip.compress(b"x" * 1000)[:-9], "", {"Content_Encoding": "gzip"}, 400, "is cut off"),
    "unknown encoding": (b"", "", {"Content_Encoding": "br"}, 415, "content encoding 'br': expected gzip"),
    "unknown type": (b"<xml/>", "text/xml", {}, 415, "content type 'text/xml': expected application/x-protobuf"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_payload_is_refused_with_the_reason(receiving, otlp, name):
    body, content_type, headers, status, reason = BAD[name]
    with receiving.server() as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", body, content_type or PROTOBUF, **headers)

    answered = json.loads(answer.body)["message"] if content_type == JSON else Status.FromString(answer.body).message
    assert answer.status == status
    assert reason in answered


@pytest.mark.parametrize("packed", [True, False])
def test_a_body_that_is_too_large_is_refused(receiving, otlp, monkeypatch, packed):
    monkeypatch.setattr("agentlightning_otel.server.MAX_BODY_BYTES", 10_000)
    body = bytes(20_000)
    with receiving.server() as send:
        headers = {"Content_Encoding": "gzip"} if packed else {}
        answer = otlp.post(f"{send.endpoint}/v1/traces", gzip.compress(body) if packed else body, **headers)
    assert answer.status == 413
    assert "is larger than" in Status.FromString(answer.body).message


def test_spans_that_cannot_be_used_are_counted_and_the_others_kept(receiving, otlp, caplog):
    nameless, timeless = otlp.span(2, "no id", CALL), otlp.span(3, "no time", CALL)
    nameless.span_id, timeless.start_time_unix_nano = b"", 0
    with receiving.server() as send:
        answer = send(otlp.request(nameless, otlp.span(1, "chat", CALL), timeless))

    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (answer.status, partial.rejected_spans) == (200, 2)
    assert "'no id': span id missing in trace" in partial.error_message
    assert "has no start time" in partial.error_message
    assert "could not use 2" in caplog.text
    assert len(receiving.one()[1]) == 1


def test_values_of_any_kind_come_back_as_they_went():
    values = {"s": "é", "i": -5, "f": 0.5, "b": True, "l": [1, ["x"]], "m": {"k": {"n": 1}}, "e": ""}
    assert attributes_of(pairs_of(values)) == values


def test_values_that_otlp_has_no_place_for_become_text():
    answered = attributes_of(pairs_of({"big": 2**70, "surrogate": "\ud800", "set": {1}, "none": None}))
    assert answered == {"big": str(2**70), "surrogate": "?", "set": "{1}"}
