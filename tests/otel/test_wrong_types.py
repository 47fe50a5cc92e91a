"""What makes no sense in a request costs itself: it is left out and reported, and everything beside it is kept."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from agentlightning_otel import conventions as names
from agentlightning_otel.incoming import read_span
from agentlightning_otel.trace import add, outcome_of
from agentlightning_otel.validation import CHECKS, FLATTENED
from agentlightning_otel.values import pairs_of

CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
JSON = "application/json"
TRACE = "0af7651916cd43dd8448eb211c80319c"
NAN, INFINITE = float("nan"), float("inf")

WRONG = {
    "gen_ai.usage.input_tokens": [NAN, INFINITE, "1e999", -5, 2.5, True, "many", [1], {"a": 1}, 1e300],
    "gen_ai.usage.prompt_tokens": [NAN],
    "llm.token_count.prompt": [INFINITE],
    "gen_ai.request.max_tokens": ["1e999"],
    "gen_ai.request.temperature": [NAN, "hot", [0.5], True],
    "gen_ai.request.top_p": [INFINITE],
    "gen_ai.input.messages": [5, True, 2.5, ["a", "b"], [None], [["user", "hi"]], "[1, null]", '[{"role": 7}]'],
    "gen_ai.output.messages": [5, ["a"], [{"role": "assistant", "parts": [None]}], '{"parts": "text"}'],
    "gen_ai.system_instructions": [5, [None], [5]],
    "gen_ai.tool.definitions": [5, "add", ["add"], [None], {"name": "add"}],
    "gen_ai.response.finish_reasons": [5, [5], [None], {"a": "stop"}],
    "gen_ai.response.model": [["small"], {"a": 1}, 2.5, True],
    "gen_ai.agent.name": [["a"], True],
    "gen_ai.conversation.id": [{"a": 1}],
    "llm.input_messages.0.message.role": [[1], 2.5],
    "gen_ai.prompt.0.role": [{"a": 1}],
    "openinference.span.kind": [["LLM"]],
    "error.type": [["timeout"]],
    "agentlightning.otel.events": ["anything", {"a": 1}],
    "agentlightning.task.id": [[1]],
}


def as_otlp_json(request) -> dict:
    content = json_format.MessageToDict(request, use_integers_for_enums=True)
    for group in content["resourceSpans"]:
        for span in group["scopeSpans"][0]["spans"]:
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in span:
                    span[name] = base64.b64decode(span[name]).hex()
    return content


def partial_success_of(answer, kind=ExportTraceServiceResponse):
    """What was rejected, how many, and why."""
    assert answer.status == 200, answer
    if answer.headers["Content-Type"] == JSON:
        return json_format.Parse(answer.body, kind()).partial_success
    return kind.FromString(answer.body).partial_success


@pytest.mark.parametrize("form", ["protobuf", "JSON"])
@pytest.mark.parametrize("name", WRONG)
def test_an_attribute_of_a_wrong_type_is_left_out_and_said(receiving, otlp, name, form):
    values = WRONG[name]
    good = {"good": "kept", "gen_ai.usage.output_tokens": 3}
    spans = [otlp.span(2 + place, "odd", {**CALL, **good, name: value}) for place, value in enumerate(values)]
    request = otlp.request(otlp.span(1, "fine", CALL), *spans)

    with receiving.server(settle=1000.0) as send:
        if form == "protobuf":
            answer = send(request)
        else:
            answer = otlp.post(f"{send.endpoint}/v1/traces", json.dumps(as_otlp_json(request)).encode(), JSON)

    partial = partial_success_of(answer)
    assert partial.rejected_spans == 0
    assert f"attribute {name} of span 'odd'" in partial.error_message
    _, received = receiving.one()
    assert [span.name for span in received] == ["fine"] + ["odd"] * len(values)
    for span in received[1:]:
        assert span.attributes["good"] == "kept"
        assert span.generation.usage.output_tokens == 3
        assert span.attributes.get(names.ALIASES.get(name, name)) == CALL.get(name)


@pytest.mark.parametrize("value", [5, 5.0, "5"])
def test_a_count_may_be_a_float_or_text(otlp, value):
    (span,) = read_span(otlp.span(1, "chat", {**CALL, "gen_ai.usage.input_tokens": value}))
    assert (span.generation.usage.input_tokens, span.attributes["gen_ai.usage.input_tokens"]) == (5, 5)


def test_an_id_may_be_a_number(otlp):
    (span,) = read_span(otlp.span(1, "chat", {**CALL, "gen_ai.conversation.id": 7}))
    assert span.attributes["gen_ai.conversation.id"] == "7"


def body_of(*spans: dict) -> dict:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


def plain_span(id: int, name: str, *attributes: dict, **more) -> dict:
    chat = {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}
    return {
        "traceId": TRACE,
        "spanId": f"{id:016x}",
        "name": name,
        "startTimeUnixNano": "100000000000",
        "endTimeUnixNano": "101000000000",
        "attributes": [chat, *attributes],
        **more,
    }


ODD_JSON = {
    "a lone surrogate in a key": [{"key": "a\ud800", "value": {"intValue": 1}}],
    "a lone surrogate in a value": [{"key": "text", "value": {"stringValue": "\udfff!"}}],
    "a lone surrogate deep in a value": [
        {"key": "deep", "value": {"arrayValue": {"values": [{"kvlistValue": {"values": [{"key": "\ud800"}]}}]}}}
    ],
    "an infinite integer": [{"key": "count", "value": {"intValue": INFINITE}}],
    "an integer that is none": [{"key": "count", "value": {"intValue": NAN}}],
    "an integer beyond 64 bits": [{"key": "count", "value": {"intValue": 2**70}}],
    "an integer of 5,000 digits": [{"key": "count", "value": {"intValue": "DIGITS"}}],
    "text for an integer": [{"key": "count", "value": {"intValue": "many"}}],
    "a value that is no object": [{"key": "count", "value": 5}],
    "a key that is no text": [{"key": ["a"], "value": {"intValue": 1}}],
    "no attribute": [None],
    "nested 200 deep": [{"key": "deep", "value": json.loads('{"arrayValue": {"values": [' * 200 + "]}}" * 200)}],
}


@pytest.mark.parametrize("name", ODD_JSON)
def test_an_attribute_that_is_no_otlp_json_is_left_out_and_said(receiving, otlp, name):
    body = json.dumps(body_of(plain_span(1, "odd", *ODD_JSON[name]), plain_span(2, "beside")))
    body = body.replace('"DIGITS"', "9" * 5000)
    with receiving.server(settle=1000.0) as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", body.encode(), JSON)

    partial = partial_success_of(answer)
    assert partial.rejected_spans == 0
    assert "resourceSpans[0].scopeSpans[0].spans[0] ('odd').attributes[1]" in partial.error_message
    assert [span.kind for span in receiving.one("otel-unknown_service")[1]] == ["llm", "llm"]


@pytest.mark.parametrize("where", ["a key of the body", "a key of a span", "the span's name", "the service"])
def test_a_lone_surrogate_anywhere_costs_no_span(receiving, otlp, where):
    span = plain_span(1, "odd\ud800" if where == "the span's name" else "odd")
    if where == "a key of a span":
        span["\ud800"] = 1
    body = body_of(span)
    if where == "a key of the body":
        body["\udfff"] = 1
    service = "shop\udfff" if where == "the service" else "agent"
    body["resourceSpans"][0]["resource"] = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(otlp.post(f"{send.endpoint}/v1/traces", json.dumps(body).encode(), JSON))

    assert partial.rejected_spans == 0
    run = "otel-unknown_service" if where == "the service" else "otel-agent"
    assert [span.name.rstrip("?") for span in receiving.one(run)[1]] == ["odd"]


def test_json_that_is_not_utf_8_costs_the_attribute(receiving, otlp):
    odd = plain_span(1, "odd", {"key": "text", "value": {"stringValue": "caf@"}})
    body = json.dumps(body_of(odd, plain_span(2, "beside"))).encode().replace(b"@", b"\xe9")
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(otlp.post(f"{send.endpoint}/v1/traces", body, JSON))

    assert (partial.rejected_spans, "attribute text at" in partial.error_message) == (0, True)
    assert len(receiving.one("otel-unknown_service")[1]) == 2


def test_protobuf_text_that_is_not_utf_8_costs_the_attribute(receiving, otlp):
    attributes = {**CALL, "bad": "caf@", "deep": [{"k": "caf@"}], "good": "é"}
    request = otlp.request(otlp.span(1, "od@", attributes), otlp.span(2, "beside", CALL))
    with receiving.server(settle=1000.0) as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", request.SerializeToString().replace(b"@", b"\xe9"))

    partial = partial_success_of(answer)
    assert partial.rejected_spans == 0
    assert "attribute bad of 'od\ufffd': it is not UTF-8" in partial.error_message
    odd, beside = receiving.one()[1]
    assert (odd.name, odd.attributes["good"], beside.name) == ("od\ufffd", "é", "beside")
    assert not {"bad", "deep"} & set(odd.attributes)


IDS = {
    "not hexadecimal": ("xyz", "is not hexadecimal"),
    "too short": ("abcd", "expected"),
    "too long": ("ab" * 20, "expected"),
    "all zero": ("0" * 32, "expected"),
    "missing": ("", "missing"),
    "no text": (5, "expected"),
}


@pytest.mark.parametrize("field", ["traceId", "spanId"])
@pytest.mark.parametrize("name", IDS)
def test_a_span_without_an_id_is_rejected_and_the_one_beside_it_kept(receiving, otlp, field, name):
    value, reason = IDS[name]
    body = json.dumps(body_of(plain_span(1, "odd", **{field: value}), plain_span(2, "beside")))
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(otlp.post(f"{send.endpoint}/v1/traces", body.encode(), JSON))

    assert (partial.rejected_spans, reason in partial.error_message) == (1, True), partial
    assert [span.name for span in receiving.one("otel-unknown_service")[1]] == ["beside"]


@pytest.mark.parametrize("parent", [b"\1", b"\1" * 20])
def test_a_parent_whose_id_is_none_is_left_out_and_said(receiving, otlp, parent):
    span = otlp.span(1, "odd", CALL)
    span.parent_span_id = parent
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(send(otlp.request(span)))

    assert "the parent's id of span 'odd'" in partial.error_message
    assert receiving.one()[1][0].parent_id is None


TIMES = {
    "no start": (0, 100, 1, ["beside"], "no start time"),
    "start beyond 2262": (2**63, 2**63 + 5, 1, ["beside"], "an impossible start time"),
    "latest start": (2**64 - 1, 0, 1, ["beside"], "an impossible start time"),
    "end before start": (10**11, 10**10, 0, ["odd", "beside"], "the end of span 'odd' is before its start"),
    "end beyond 2262": (10**11, 2**63, 0, ["odd", "beside"], "the end of span 'odd' is impossible"),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_out_of_range(receiving, otlp, name):
    started, ended, rejected, kept, reason = TIMES[name]
    odd = otlp.span(1, "odd", CALL)
    odd.start_time_unix_nano, odd.end_time_unix_nano = started, ended
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(send(otlp.request(odd, otlp.span(2, "beside", CALL))))

    assert (partial.rejected_spans, reason in partial.error_message) == (rejected, True), partial
    spans = receiving.one()[1]
    assert [span.name for span in spans] == kept
    assert all(span.ended_at >= span.started_at for span in spans)


ODD_FIELDS = {
    "an unknown status": {"status": {"code": 7, "message": "?"}},
    "a status that is no number": {"status": {"code": "STATUS_CODE_ODD"}},
    "a status that is no object": {"status": "error"},
    "events that are no list": {"events": "none"},
    "an event that is no object": {"events": [5]},
    "an event without a name": {"events": [{"timeUnixNano": "1", "attributes": [{"key": "a"}]}]},
    "an event whose time is none": {"events": [{"name": "e", "timeUnixNano": "-5"}]},
    "links that are no list": {"links": {"traceId": "xyz"}},
    "a link to nowhere": {"links": [{"traceId": "xyz", "spanId": 5}]},
    "a kind that is none": {"kind": "SPAN_KIND_ODD"},
    "counts below zero": {"droppedAttributesCount": -1},
    "unknown fields": {"colour": {"red": [1, None]}},
}


@pytest.mark.parametrize("name", ODD_FIELDS)
def test_an_odd_field_costs_no_span(receiving, otlp, name):
    body = json.dumps(body_of(plain_span(1, "odd", **ODD_FIELDS[name]), plain_span(2, "beside")))
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(
            otlp.post(f"{send.endpoint}/v1/traces", gzip.compress(body.encode()), JSON, Content_Encoding="gzip")
        )

    assert partial.rejected_spans == 0
    rollout, spans = receiving.one("otel-unknown_service")
    assert ([span.name for span in spans], rollout.failure) == (["odd", "beside"], None)


def test_a_span_that_is_no_object_is_rejected(receiving, otlp):
    body = json.dumps(body_of(plain_span(1, "fine"), 5, None))
    with receiving.server(settle=1000.0) as send:
        partial = partial_success_of(otlp.post(f"{send.endpoint}/v1/traces", body.encode(), JSON))

    assert partial.rejected_spans == 2
    assert "spans[1]: expected an object, got int" in partial.error_message


@pytest.mark.parametrize("body", [{"resourceSpans": [5]}, {"resourceSpans": [{"scopeSpans": 5}]}])
def test_what_is_wrong_above_the_spans_is_refused(receiving, otlp, body):
    with receiving.server() as send:
        answer = otlp.post(f"{send.endpoint}/v1/traces", json.dumps(body).encode(), JSON)
    assert (answer.status, "resourceSpans" in json.loads(answer.body)["message"]) == (400, True)


def test_events_of_the_logs_are_held_to_the_same(receiving, otlp):
    details = "gen_ai.client.inference.operation.details"
    record = LogRecord(
        event_name=details,
        time_unix_nano=10**11,
        trace_id=bytes.fromhex(TRACE),
        span_id=b"\1" * 8,
        attributes=pairs_of(
            {"gen_ai.input.messages": 5, "gen_ai.output.messages": "Hi", "gen_ai.operation.name": ["chat"]}
        ),
    )
    scopes = [ScopeLogs(log_records=[record])]
    request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=scopes)])
    with receiving.server(settle=1000.0) as send:
        answer = otlp.post(f"{send.endpoint}/v1/logs", request.SerializeToString())

    partial = partial_success_of(answer, ExportLogsServiceResponse)
    assert f"attribute gen_ai.input.messages of event '{details}'" in partial.error_message
    assert receiving.one("otel-unknown_service")[1][0].generation.response["content"] == "Hi"


READ = sorted(
    {
        *CHECKS,
        *names.ALIASES,
        *(f"{family}{rest}" for family in FLATTENED for rest in ("0", "0.role", "1.message.content", "x.y.z")),
        *(f"llm.input_messages.0.message.{it}.0.x" for it in ("tool_calls", "contents")),
        *(f"ai.{it}" for it in ("prompt", "prompt.messages", "prompt.tools", "response.text", "response.toolCalls")),
        *("ai.operationId", "langsmith.span.kind", "events", "agent_name", "tool_arguments", "gen_ai.prompt"),
        *("input.value", "output.value", "llm.invocation_parameters", "llm.tools.0.tool", "retrieval.documents.0"),
        *("evaluations.0.evaluation.name", "evaluations.0.evaluation.score", "gen_ai.completion"),
    }
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=5)
WORDS = st.sampled_from(
    ["chat", "LLM", "llm", "execute_tool", "ai.toolCall", "ai.generateText.doGenerate", "[", "1e999"]
)
KEYS = [
    "role",
    "content",
    "parts",
    "type",
    "messages",
    "message",
    "tool_calls",
    "function",
    "name",
    "kwargs",
    "choices",
]
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner),
    max_leaves=8,
)
ANY = VALUES | VALUES.map(lambda value: json.dumps(value))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(READ), ANY, max_size=6), st.dictionaries(st.sampled_from(READ), ANY, max_size=3))
def test_whatever_is_in_a_span_it_is_read(attributes, event):
    made = OtlpSpan(
        trace_id=b"\1" * 16,
        span_id=b"\1" * 8,
        start_time_unix_nano=10**11,
        attributes=pairs_of(attributes),
        events=[
            OtlpSpan.Event(name=name, attributes=pairs_of(event))
            for name in (*names.MESSAGE_EVENTS, names.CHOICE_EVENT, names.EVALUATION_EVENT, names.DETAILS_EVENT)
        ],
    )
    spans = {}
    add(spans, read_span(made, []))
    outcome_of(spans)


def test_the_requests_of_these_tests_are_otlp(otlp):
    """`as_otlp_json` gives what the decoder reads as it is."""
    request = otlp.request(otlp.span(1, "chat", CALL))
    content = as_otlp_json(request)
    for span in content["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId"):
            span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    assert json_format.ParseDict(content, ExportTraceServiceRequest()) == request


@pytest.mark.parametrize(
    "name",
    [
        "llm.input_messages.0." + "a." * 5000 + "b",
        "gen_ai.prompt.0" + ".0" * 5000,
        "gen_ai.prompt." + "9" * 5000 + ".role",
        "llm.tools." + "9" * 5000,
    ],
    ids=["deep", "deep in places", "a place of 5,000 digits", "a tool's place"],
)
def test_a_flattened_name_may_be_of_any_depth(receiving, otlp, name):
    receiving.receive(otlp.request(otlp.span(1, "chat", {**CALL, name: "x"}), otlp.span(2, "beside", CALL)))

    rollout, spans = receiving.one()
    assert (rollout.status, len(spans)) == ("succeeded", 2)


@pytest.mark.parametrize("depth", [99, 101, 900, 100_000])
def test_json_in_an_attribute_may_be_of_any_depth(receiving, otlp, depth):
    deep = "[" * depth + "]" * depth
    message = f'[{{"role": "user", "content": "Hi", "more": {deep}}}]'
    attributes = {**CALL, "gen_ai.input.messages": message, "gen_ai.output.messages": deep}
    agent = {"gen_ai.operation.name": "invoke_agent", "input.value": deep, "gen_ai.input.messages": message}
    receiving.receive(otlp.request(otlp.span(1, "chat", attributes, parent=2), otlp.span(2, "agent", agent)))

    rollout, spans = receiving.one()
    assert (rollout.status, len(spans)) == ("succeeded", 2)
