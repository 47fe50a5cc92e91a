"""Runs sent to an endpoint decode with the official classes, under the names of the GenAI conventions."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner
from finished_run import RUN, fill, url_in
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from agentlightning import semconv
from agentlightning.cli import main
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task
from agentlightning_otel import sender
from agentlightning_otel.errors import OtlpError
from agentlightning_otel.outgoing import otlp_spans, span_id, trace_id
from agentlightning_otel.sender import Sender, batches, headers_of, traces_url
from agentlightning_otel.values import attributes_of

ROLLOUTS = 48
"""Of `finished_run`: 8 tasks before and after, and 4 steps of 2 tasks, 4 times."""


@pytest.fixture
def store(tmp_path):
    url = url_in(tmp_path)
    asyncio.run(fill(url))
    return url


def agl(*arguments):
    return CliRunner().invoke(main, [*arguments])


def send(store, collector, *more):
    return agl("otel", "send", RUN[:8], "--endpoint", collector.endpoint, "--store", store, *more)


def by_trace(collector):
    traces = {}
    for span in collector.spans:
        traces.setdefault(span.trace_id, []).append(span)
    return list(traces.values())


def attributes_in(span):
    return attributes_of(span.attributes)


def events(span, name="gen_ai.evaluation.result"):
    return [attributes_of(event.attributes) for event in span.events if event.name == name]


def test_a_run_is_sent(store, collector):
    result = send(store, collector)

    assert result.exit_code == 0, result.output
    assert result.output == f"{ROLLOUTS} rollouts ({ROLLOUTS * 5} spans) sent to {collector.endpoint}/v1/traces\n"
    assert {it["path"] for it in collector.headers} == {"/v1/traces"}
    assert {it["content-type"] for it in collector.headers} == {"application/x-protobuf"}
    assert {it["content-encoding"] for it in collector.headers} == {"gzip"}
    resources = [attributes_of(group.resource.attributes) for it in collector.requests for group in it.resource_spans]
    assert {it["service.name"] for it in resources} == {RUN}
    assert {it["agentlightning.run.id"] for it in resources} == {RUN}
    assert len(by_trace(collector)) == ROLLOUTS


def test_a_rollout_is_a_trace_with_one_root(store, collector):
    send(store, collector)

    for trace in by_trace(collector):
        ids = {span.span_id for span in trace}
        assert len(ids) == 5
        (root,) = (span for span in trace if not span.parent_span_id)
        assert all(span.parent_span_id in ids for span in trace if span is not root)
        assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 for span in trace)
        attributes = attributes_in(root)
        assert trace_id(attributes["agentlightning.rollout.id"]) == root.trace_id
        assert attributes["gen_ai.operation.name"] == "invoke_workflow"
        assert attributes["agentlightning.resource.policy"] == "a"
    names = [(span.name, span.kind) for span in by_trace(collector)[0]]
    assert names == [
        ("invoke_workflow rollout", OtlpSpan.SPAN_KIND_INTERNAL),
        ("invoke_workflow graph", OtlpSpan.SPAN_KIND_INTERNAL),
        ("chat tiny", OtlpSpan.SPAN_KIND_CLIENT),
        ("execute_tool calculator", OtlpSpan.SPAN_KIND_INTERNAL),
        ("chat tiny", OtlpSpan.SPAN_KIND_CLIENT),
    ]


def test_a_model_call_has_its_messages_and_counts(store, collector):
    send(store, collector)

    _, graph, call, _, last = by_trace(collector)[0]
    attributes = attributes_in(call)
    assert call.parent_span_id == graph.span_id
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.agent.name"] == "model"
    assert attributes["gen_ai.response.model"] == "tiny"
    assert attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (10, 3)
    assert (attributes["agentlightning.policy.name"], attributes["agentlightning.policy.version"]) == ("policy", 3)
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Use the calculator."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What is 0 + 1?"}]},
    ]
    (answer,) = json.loads(attributes["gen_ai.output.messages"])
    assert answer["parts"] == [
        {"type": "tool_call", "id": "call_1", "name": "calculator", "arguments": {"expression": "0 + 1"}}
    ]
    result = json.loads(attributes_in(last)["gen_ai.input.messages"])[-1]
    assert result == {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_1", "response": "1"}]}


def test_a_tool_has_its_arguments_and_result(store, collector):
    send(store, collector)

    tool = by_trace(collector)[0][3]
    attributes = attributes_in(tool)
    assert attributes["gen_ai.tool.name"] == "calculator"
    assert json.loads(attributes["gen_ai.tool.call.arguments"]) == {"expression": "0 + 1"}
    assert attributes["gen_ai.tool.call.result"] == "1"


def test_rewards_are_evaluation_events_where_they_were_given(store, collector):
    send(store, collector)

    root, _, _, tool, _ = by_trace(collector)[0]
    assert events(root) == [{"gen_ai.evaluation.name": "numeric_match", "gen_ai.evaluation.score.value": 1.0}]
    step = {"agentlightning.reward.step": True}
    assert events(tool) == [{"gen_ai.evaluation.name": "tool_used", "gen_ai.evaluation.score.value": 0.5, **step}]


def test_a_failure_is_a_status_an_error_type_and_an_exception(store, collector):
    send(store, collector)

    failed = [span for span in collector.spans if span.status.code == Status.STATUS_CODE_ERROR]
    assert [span.name for span in failed] == ["invoke_workflow rollout", "execute_tool calculator"]
    for span in failed:
        assert attributes_in(span)["error.type"] == "tool_error"
        assert span.status.message.startswith("division by zero")
        assert events(span, "exception")[0]["exception.message"].startswith("division by zero")


def test_sent_twice_it_has_the_same_ids(store, collector):
    send(store, collector)
    first, collector.requests = collector.spans, []
    send(store, collector)
    assert collector.spans == first


def test_what_is_sent_can_be_received(store, receiving, otlp):
    with receiving.server(settle=1000.0) as there:
        result = agl("otel", "send", RUN, "--endpoint", there.endpoint, "--store", store)
    assert result.exit_code == 0, result.output

    ours, theirs = otlp.read(store, RUN), receiving.read(f"otel-{RUN}")
    assert len(theirs.rollouts) == ROLLOUTS
    for sent, received in zip(ours.rollouts, theirs.rollouts, strict=True):
        assert received.id == trace_id(sent.id).hex()
        assert (received.status, received.task_id) == (sent.status, sent.task_id)
        assert received.outcome == pytest.approx(sent.outcome)
        assert received.total_reward == pytest.approx(sent.total_reward + 0.5)  # of a step, kept in its span alone
        assert received.output == "1"
        before = [span for span in ours.spans[sent.id] if span.reward is None]
        root, *after = [span for span in theirs.spans[received.id] if span.reward is None]
        assert (root.kind, root.name) == ("agent", "rollout")
        for span, copy in zip(before, after, strict=True):
            assert (copy.kind, copy.agent) == (span.kind, span.agent)
            assert copy.started_at == pytest.approx(span.started_at)
            if span.failure is not None:
                assert (copy.failure.type, copy.failure.message) == (span.failure.type, span.failure.message)
            if span.generation is not None:
                assert copy.generation.messages == span.generation.messages
                assert copy.generation.response == span.generation.response
                assert copy.generation.usage == span.generation.usage
                assert copy.generation.provenance == "text"


def test_an_endpoint_that_is_busy_is_tried_again(store, collector, monkeypatch):
    monkeypatch.setattr(sender, "BACKOFF_SECONDS", 0)
    collector.answers = [503, 429]
    assert send(store, collector).exit_code == 0
    assert len(by_trace(collector)) == ROLLOUTS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (400, "answered 400: not now"),
        (
            ExportTraceServiceResponse(
                partial_success=ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
            ),
            "refused 2 span(s): too old",
        ),
    ],
)
def test_an_endpoint_that_refuses_is_one_clear_error(store, collector, answer, reason):
    collector.answers = [answer]
    result = send(store, collector)
    assert result.exit_code == 2
    assert reason in result.output


def test_an_endpoint_that_is_not_there_is_one_clear_error(collector, monkeypatch):
    monkeypatch.setattr(sender, "BACKOFF_SECONDS", 0)
    endpoint = collector.endpoint
    collector.close()
    with pytest.raises(OtlpError, match=r"cannot be reached: .*is it an OTLP/HTTP endpoint\?"):
        Sender(endpoint).send(rollout(), [], None)


def test_headers_come_from_the_command_and_the_environment(store, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-project=a%20b,authorization=Basic%20old")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my agent")
    send(store, collector, "--header", "authorization=Basic abc==")
    assert {(it["x-project"], it["authorization"]) for it in collector.headers} == {("a b", "Basic abc==")}
    resource = collector.requests[0].resource_spans[0].resource
    assert attributes_of(resource.attributes)["service.name"] == "my agent"


@pytest.mark.parametrize("text", ["novalue", "=x"])
def test_a_header_without_name_or_value_is_an_error(store, collector, text):
    with pytest.raises(OtlpError, match="expected name=value"):
        headers_of(text)
    assert "expected name=value" in send(store, collector, "--header", text).output


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://host:4318", "http://host:4318/v1/traces"),
        ("http://host:4318/", "http://host:4318/v1/traces"),
        ("http://host/api/otel", "http://host/api/otel/v1/traces"),
        ("http://host/v1/traces", "http://host/v1/traces"),
        ("https://host/v1/traces?project=1", "https://host/v1/traces?project=1"),
    ],
)
def test_the_path_is_added_to_an_endpoint(endpoint, url):
    assert traces_url(endpoint) == url


@pytest.mark.parametrize("endpoint", ["host:4318", "", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_address_is_an_error(endpoint):
    with pytest.raises(OtlpError, match="expected an address such as"):
        traces_url(endpoint)


def rollout(**fields):
    known = {"run_id": "run", "group_id": "g", "task_id": "t", "purpose": "train", "status": "succeeded", "attempt": 1}
    return Rollout(**{"id": "00000000000000aa", **known, **fields})


def a_span(id, kind, name, **fields):
    times = {"started_at": 10.0, "ended_at": 11.0}
    return Span(**{"id": id, "rollout_id": "00000000000000aa", "kind": kind, "name": name, **times, **fields})


def test_large_runs_are_sent_in_batches(monkeypatch):
    spans = list(otlp_spans(rollout(), [a_span(f"s{place}", "agent", "a") for place in range(9)], None))
    monkeypatch.setattr(sender, "BATCH_SPANS", 4)
    assert [len(batch) for batch in batches(spans)] == [4, 4, 2]
    monkeypatch.setattr(sender, "BATCH_BYTES", 1)
    assert [len(batch) for batch in batches(spans)] == [1] * 10


def test_every_kind_has_its_operation_and_name():
    spans = [
        a_span("a", "agent", "crew", attributes={semconv.STRUCTURE: "crew"}),
        a_span("b", "agent", "writer", attributes={semconv.STRUCTURE: "agent"}, agent="writer"),
        a_span(
            "c", "retrieval", "search", attributes={semconv.RETRIEVAL_QUERY: "q", semconv.RETRIEVAL_DOCUMENTS: [{}]}
        ),
        a_span("d", "handoff", "to reader"),
        a_span("e", "annotation", "note", attributes={"key": "value"}),
        a_span("f", "llm", "embeddings", attributes={semconv.OPERATION_NAME: "embeddings"}),
    ]
    sent = list(otlp_spans(rollout(), spans, None))[1:]
    assert [(span.name, attributes_in(span).get("gen_ai.operation.name")) for span in sent] == [
        ("invoke_workflow crew", "invoke_workflow"),
        ("invoke_agent writer", "invoke_agent"),
        ("retrieval search", "retrieval"),
        ("to reader", None),
        ("note", None),
        ("embeddings", "embeddings"),
    ]
    assert attributes_in(sent[2])["gen_ai.retrieval.query.text"] == "q"
    assert attributes_in(sent[2])["gen_ai.retrieval.documents"] == "[{}]"
    assert attributes_in(sent[4])["key"] == "value"
    assert [attributes_in(span)["agentlightning.span.kind"] for span in sent] == [span.kind for span in spans]


def test_ids_that_are_no_opentelemetry_ids_are_derived():
    assert span_id("00f067aa0ba902b7").hex() == "00f067aa0ba902b7"
    assert trace_id("0af7651916cd43dd8448eb211c80319c").hex() == "0af7651916cd43dd8448eb211c80319c"
    for odd in ("task-1", "0" * 16, "ABCDEF0123456789", ""):
        assert len(span_id(odd)) == 8
        assert any(span_id(odd))
    assert len(trace_id("00f067aa0ba902b7")) == 16


def test_a_span_whose_parent_was_not_written_hangs_under_the_root():
    root, span = otlp_spans(rollout(), [a_span("b", "agent", "a", parent_id="lost")], None)
    assert span.parent_span_id == root.span_id


def test_a_reward_that_could_not_be_told_is_not_sent_as_zero():
    (root,) = otlp_spans(rollout(rewards=[Reward(name="judge", value=None, weight=0.5, reason="no answer")]), [], None)
    assert events(root) == [
        {
            "gen_ai.evaluation.name": "judge",
            "gen_ai.evaluation.explanation": "no answer",
            "error.type": "reward_error",
            "agentlightning.reward.weight": 0.5,
        }
    ]


def test_a_reward_given_during_the_run_is_sent_once():
    reward = Reward(name="used", value=1.0, span_id="a", at=10.5)
    spans = [a_span("a", "tool", "add"), a_span("r", "reward", "used", parent_id="a", reward=reward)]
    root, tool = otlp_spans(rollout(rewards=[reward]), spans, None)
    assert (len(events(root)), len(events(tool))) == (0, 1)


def test_what_the_agent_said_of_the_whole_is_on_the_root_wherever_it_said_so():
    reward = Reward(name="done", value=1.0, at=10.5)
    spans = [a_span("a", "tool", "add"), a_span("r", "reward", "done", parent_id="a", reward=reward)]
    root, tool = otlp_spans(rollout(rewards=[reward]), spans, None)
    assert (len(events(root)), len(events(tool))) == (1, 0)


def test_what_was_asked_and_answered_is_on_the_root():
    output = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    (root,) = otlp_spans(rollout(output=output), [], Task(id="t", input={"question": 1}))
    assert json.loads(attributes_in(root)["gen_ai.input.messages"])[0]["parts"][0]["content"] == '{"question": 1}'
    assert json.loads(attributes_in(root)["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Ho"}]}
    ]


def test_anything_that_can_be_recorded_can_be_sent():
    odd = {
        "set": {1},
        "big": 2**80,
        "surrogate": "\ud800",
        "object": object(),
        "none": None,
        "nested": [[1], {"a": {2}}],
        "keys": {("a", "b"): 1},
    }
    call = Generation(messages=[{"role": "user", "content": [{"type": "odd", "x": {1}}]}, {"no": "role"}], tools=[{}])
    failure = Failure(type="agent_error", message="\ud800", traceback="\ud800")
    spans = [a_span("a", "llm", "chat\ud800", attributes=odd, generation=call, failure=failure, ended_at=None)]
    for span in otlp_spans(rollout(output=object()), spans, Task(id="t", input=object())):
        assert OtlpSpan.FromString(span.SerializeToString()) == span
