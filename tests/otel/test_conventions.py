"""The same call, in each of the conventions that are about, is the same generation."""

from __future__ import annotations

import json

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from agentlightning_otel.incoming import read_span
from agentlightning_otel.messages import chat_messages, gen_ai_messages
from agentlightning_otel.values import pairs_of, to_value

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ARGUMENTS = '{"a": 1}'
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": ARGUMENTS}}
MESSAGES = [
    {"role": "system", "content": "Add."},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "call_1"},
]
RESPONSE = {"role": "assistant", "content": "2"}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}]


def part(type, **fields):
    return {"type": type, **fields}


CURRENT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "small",
    "gen_ai.response.model": "small-1",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.response.finish_reasons": ["stop"],
    "gen_ai.usage.input_tokens": 9,
    "gen_ai.usage.output_tokens": 1,
}
SAID = {
    "gen_ai.system_instructions": [part("text", content="Add.")],
    "gen_ai.input.messages": [
        {"role": "user", "parts": [part("text", content="1 + 1?")]},
        {"role": "assistant", "parts": [part("tool_call", id="call_1", name="add", arguments={"a": 1})]},
        {"role": "tool", "parts": [part("tool_call_response", id="call_1", response="2")]},
    ],
    "gen_ai.output.messages": [
        {"role": "assistant", "parts": [part("text", content="2")], "finish_reason": "stop"},
    ],
    "gen_ai.tool.definitions": [{"type": "function", "name": "add", "description": "Adds.", "parameters": SCHEMA}],
}
OPENINFERENCE = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "small",
    "llm.response.model_name": "small-1",
    "llm.invocation_parameters": '{"temperature": 0.5}',
    "llm.finish_reason": "stop",
    "llm.token_count.prompt": 9,
    "llm.token_count.completion": 1,
    "llm.token_count.total": 10,
    "input.value": "{}",
    "llm.input_messages.0.message.role": "system",
    "llm.input_messages.0.message.content": "Add.",
    "llm.input_messages.1.message.role": "user",
    "llm.input_messages.1.message.contents.0.message_content.type": "text",
    "llm.input_messages.1.message.contents.0.message_content.text": "1 + 1?",
    "llm.input_messages.2.message.role": "assistant",
    "llm.input_messages.2.message.tool_calls.0.tool_call.id": "call_1",
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.name": "add",
    "llm.input_messages.2.message.tool_calls.0.tool_call.function.arguments": ARGUMENTS,
    "llm.input_messages.3.message.role": "tool",
    "llm.input_messages.3.message.tool_call_id": "call_1",
    "llm.input_messages.3.message.content": "2",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": "2",
    "llm.tools.0.tool.json_schema": json.dumps(TOOLS[0]),
}
OPENLLMETRY = {
    "llm.request.type": "chat",
    "gen_ai.system": "openai",
    "gen_ai.request.model": "small",
    "gen_ai.response.model": "small-1",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.usage.prompt_tokens": 9,
    "gen_ai.usage.completion_tokens": 1,
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Add.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "1 + 1?",
    "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.tool_calls.0.id": "call_1",
    "gen_ai.prompt.2.tool_calls.0.name": "add",
    "gen_ai.prompt.2.tool_calls.0.arguments": ARGUMENTS,
    "gen_ai.prompt.3.role": "tool",
    "gen_ai.prompt.3.tool_call_id": "call_1",
    "gen_ai.prompt.3.content": "2",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "2",
    "gen_ai.completion.0.finish_reason": "stop",
    "llm.request.functions.0.name": "add",
    "llm.request.functions.0.description": "Adds.",
    "llm.request.functions.0.parameters": json.dumps(SCHEMA),
}
MESSAGE_EVENTS = [
    ("gen_ai.system.message", {"content": "Add."}),
    ("gen_ai.user.message", {"content": "1 + 1?"}),
    ("gen_ai.assistant.message", {"tool_calls": json.dumps([CALL])}),
    ("gen_ai.tool.message", {"content": "2", "id": "call_1"}),
    ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": json.dumps(RESPONSE)}),
]
AS_JSON = {name: json.dumps(value) for name, value in SAID.items()}
TOLD = {
    "current, structured": ({**CURRENT, **SAID}, []),
    "current, as JSON": ({**CURRENT, **AS_JSON}, []),
    "current, in an event of the span": (CURRENT, [("gen_ai.client.inference.operation.details", SAID)]),
    "chat messages under the current names": (
        {
            **CURRENT,
            "gen_ai.input.messages": json.dumps(MESSAGES),
            "gen_ai.output.messages": json.dumps([RESPONSE]),
            "gen_ai.tool.definitions": json.dumps(TOOLS),
        },
        [],
    ),
    "older, an event a message": ({**CURRENT, "gen_ai.tool.definitions": json.dumps(TOOLS)}, MESSAGE_EVENTS),
    "OpenInference": (OPENINFERENCE, []),
    "OpenLLMetry": (OPENLLMETRY, []),
}


@pytest.mark.parametrize("convention", TOLD)
def test_a_model_call_is_told_alike_in_every_convention(otlp, convention):
    attributes, events = TOLD[convention]
    (span,) = read_span(otlp.span(1, "chat small", attributes, events=events))

    call = span.generation
    assert span.kind == "llm"
    assert call.messages == MESSAGES
    assert call.response == RESPONSE
    assert call.tools == TOOLS
    assert (call.model, call.finish_reason, call.temperature, call.provenance) == ("small-1", "stop", 0.5, "text")
    assert (call.usage.input_tokens, call.usage.output_tokens) == (9, 1)
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.request.model"] == "small"
    assert span.attributes["gen_ai.usage.input_tokens"] == 9
    assert not [name for name in span.attributes if "message" in name or name.startswith(("gen_ai.prompt", "llm.in."))]


@pytest.mark.parametrize(
    ("attributes", "kind", "name", "agent"),
    [
        ({"gen_ai.operation.name": "generate_content"}, "llm", "it", None),
        ({"gen_ai.operation.name": "embeddings"}, "llm", "it", None),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}, "tool", "add", None),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "solver"}, "agent", "solver", "solver"),
        ({"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "crew"}, "agent", "crew", None),
        ({"gen_ai.operation.name": "retrieval"}, "retrieval", "it", None),
        ({"gen_ai.operation.name": "search_memory"}, "retrieval", "it", None),
        ({"gen_ai.operation.name": "create_agent", "gen_ai.agent.name": "solver"}, "annotation", "it", "solver"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.transfer.target.name": "b"}, "handoff", "it", None),
        ({"openinference.span.kind": "AGENT", "agent.name": "solver"}, "agent", "solver", "solver"),
        ({"openinference.span.kind": "CHAIN"}, "agent", "it", None),
        ({"openinference.span.kind": "TOOL", "tool.name": "add"}, "tool", "add", None),
        ({"openinference.span.kind": "RETRIEVER"}, "retrieval", "it", None),
        ({"openinference.span.kind": "EMBEDDING"}, "llm", "it", None),
        ({"openinference.span.kind": "GUARDRAIL"}, "annotation", "it", None),
        ({"traceloop.span.kind": "workflow"}, "agent", "it", None),
        ({"traceloop.span.kind": "tool"}, "tool", "it", None),
        ({"http.request.method": "GET"}, "annotation", "it", None),
    ],
)
def test_what_a_span_is(otlp, attributes, kind, name, agent):
    (span,) = read_span(otlp.span(1, "it", attributes))
    assert (span.kind, span.name, span.attributes.get("gen_ai.agent.name")) == (kind, name, agent)


def test_embeddings_have_no_generation(otlp):
    (span,) = read_span(otlp.span(1, "embeddings", {"gen_ai.operation.name": "embeddings"}))
    assert span.generation is None


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.call.arguments": {"a": 1},
            "gen_ai.tool.call.result": "2",
        },
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.call.arguments": ARGUMENTS,
            "gen_ai.tool.call.result": "2",
        },
        {"openinference.span.kind": "TOOL", "input.value": ARGUMENTS, "output.value": "2"},
        {"traceloop.span.kind": "tool", "traceloop.entity.input": ARGUMENTS, "traceloop.entity.output": "2"},
    ],
)
def test_a_tools_arguments_and_result(otlp, attributes):
    (span,) = read_span(otlp.span(1, "add", attributes))
    assert span.attributes["gen_ai.tool.call.arguments"] == {"a": 1}
    assert span.attributes["gen_ai.tool.call.result"] == "2"


@pytest.mark.parametrize(
    "attributes",
    [
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.retrieval.query.text": "lightning",
            "gen_ai.retrieval.documents": '[{"id": "d1", "score": 0.5, "content": "A flash."}]',
        },
        {
            "openinference.span.kind": "RETRIEVER",
            "input.value": "lightning",
            "retrieval.documents.0.document.id": "d1",
            "retrieval.documents.0.document.score": 0.5,
            "retrieval.documents.0.document.content": "A flash.",
        },
    ],
)
def test_a_retrievals_query_and_documents(otlp, attributes):
    (span,) = read_span(otlp.span(1, "search", attributes))
    assert span.attributes["agentlightning.retrieval.query"] == "lightning"
    (document,) = span.attributes["agentlightning.retrieval.documents"]
    assert document == {"id": "d1", "score": 0.5, "content": "A flash."}


def test_each_answer_beyond_the_first_is_a_span_of_its_own(otlp):
    answers = [
        {"role": "assistant", "parts": [part("text", content=text)], "finish_reason": reason}
        for text, reason in (("2", "stop"), ("3", "length"))
    ]
    attributes = {**CURRENT, "gen_ai.output.messages": answers}
    first, second = read_span(otlp.span(2, "chat small", attributes, parent=1))

    assert (first.generation.response["content"], second.generation.response["content"]) == ("2", "3")
    assert (first.generation.finish_reason, second.generation.finish_reason) == ("stop", "length")
    assert (first.parent_id, first.generation.usage.output_tokens) == (second.parent_id, 1)
    assert second.generation.usage is None
    assert second.id == read_span(otlp.span(2, "chat small", attributes, parent=1))[1].id != first.id


@pytest.mark.parametrize(
    ("kind", "error", "message", "type", "fault"),
    [
        ("chat", "429", "", "rate_limited", "infrastructure"),
        ("chat", "openai.RateLimitError", "", "rate_limited", "infrastructure"),
        ("chat", "timeout", "", "timeout", "infrastructure"),
        ("chat", "java.net.UnknownHostException", "", "agent_error", "agent"),
        ("chat", "APIConnectionError", "", "engine_unavailable", "infrastructure"),
        ("chat", "503", "", "engine_unavailable", "infrastructure"),
        ("chat", "AuthenticationError", "", "authentication_failed", "infrastructure"),
        ("chat", "400", "the maximum context length is 8192 tokens", "context_too_long", "agent"),
        ("chat", "400", "no such field", "bad_request", "agent"),
        ("execute_tool", "timeout", "", "tool_error", "agent"),
        ("invoke_agent", "timeout", "", "timeout", "agent"),
        ("execute_tool", "ValueError", "", "tool_error", "agent"),
        ("retrieval", "ValueError", "", "retrieval_error", "agent"),
        ("invoke_agent", "ValueError", "", "agent_error", "agent"),
        ("invoke_agent", "CancelledError", "", "cancelled", "agent"),
    ],
)
def test_what_an_error_means(otlp, kind, error, message, type, fault):
    attributes = {"gen_ai.operation.name": kind, "error.type": error}
    (span,) = read_span(otlp.span(1, "it", attributes, error=message))
    assert (span.failure.type, span.failure.fault) == (type, fault)
    assert span.failure.message == (message or error)


def test_an_exception_that_was_handled_is_no_failure(otlp):
    events = [("exception", {"exception.type": "ValueError", "exception.message": "no"})]
    (span,) = read_span(otlp.span(1, "chat", CURRENT, events=events))
    assert span.failure is None


def test_the_failure_of_a_rollout_is_that_of_its_root_and_knows_the_fault(receiving, otlp):
    agent = {"gen_ai.operation.name": "invoke_agent", "error.type": "RateLimitError"}
    receiving.receive(
        otlp.request(
            otlp.span(1, "invoke_agent a", agent, error="slow down"),
            otlp.span(2, "chat", {**CURRENT, "error.type": "RateLimitError"}, parent=1, error="slow down"),
        )
    )
    rollout, _ = receiving.one()
    assert (rollout.status, rollout.failure.type, rollout.failure.fault) == ("failed", "rate_limited", "infrastructure")
    assert not rollout.is_scorable


def test_a_failure_that_the_agent_got_over_is_not_its_rollouts(receiving, otlp):
    receiving.receive(
        otlp.request(
            otlp.span(1, "invoke_agent a", {"gen_ai.operation.name": "invoke_agent"}),
            otlp.span(2, "chat", {**CURRENT, "error.type": "429"}, parent=1),
            otlp.span(3, "chat", {**CURRENT, **SAID}, parent=1),
        )
    )
    rollout, spans = receiving.one()
    assert (rollout.status, rollout.output) == ("succeeded", "2")
    assert spans[1].failure.type == "rate_limited"


def test_an_agent_that_swallowed_the_failure_of_its_last_call_has_no_valid_result(receiving, otlp):
    receiving.receive(
        otlp.request(
            otlp.span(1, "invoke_agent a", {"gen_ai.operation.name": "invoke_agent"}),
            otlp.span(2, "chat", {**CURRENT, **SAID}, parent=1),
            otlp.span(3, "chat", {**CURRENT, "error.type": "429"}, parent=1),
        )
    )
    rollout, _ = receiving.one()
    assert (rollout.status, rollout.failure.type, rollout.is_scorable) == ("failed", "rate_limited", False)


def event(name, body=None, *, span=1, at=101.0, **attributes):
    return LogRecord(
        event_name=name,
        time_unix_nano=round(at * 1e9),
        trace_id=bytes.fromhex("0af7651916cd43dd8448eb211c80319c"),
        span_id=span.to_bytes(8, "big") if span else b"",
        body=to_value(body) if body is not None else AnyValue(),
        attributes=pairs_of({name.replace("__", "."): value for name, value in attributes.items()}),
    )


def logs(*records):
    resource = Resource(attributes=pairs_of({"service.name": "agent"}))
    scopes = [ScopeLogs(log_records=records)]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=resource, scope_logs=scopes)])


@pytest.mark.parametrize("spans_first", [True, False])
@pytest.mark.parametrize("convention", ["current", "older"])
def test_what_was_said_may_come_as_events_of_the_logs(receiving, otlp, convention, spans_first):
    if convention == "current":
        attributes = {**SAID, "gen_ai.operation.name": "chat"}
        records = [event("gen_ai.client.inference.operation.details", **attributes)]
    else:
        records = [
            event(name, {**body, "message": json.loads(body["message"])} if "message" in body else body, at=101 + place)
            for place, (name, body) in enumerate(MESSAGE_EVENTS)
        ]
    call = otlp.request(otlp.span(1, "chat small", CURRENT))

    with receiving.server(settle=1000.0) as send:

        def send_logs(*records):
            answer = otlp.post(f"{send.endpoint}/v1/logs", logs(*records).SerializeToString())
            assert answer.status == 200

        if spans_first:
            send(call)
        for record in reversed(records):
            send_logs(record)
        send_logs(*records)
        if not spans_first:
            send(call)

    _, (span,) = receiving.one()
    assert span.generation.messages == MESSAGES
    assert span.generation.response == RESPONSE
    assert (span.generation.model, span.generation.usage.output_tokens) == ("small-1", 1)
    assert (span.name, span.started_at, span.ended_at) == ("chat small", 101.0, 101.5)


def test_an_evaluation_may_come_as_an_event_of_the_logs(receiving, otlp):
    attributes = {"gen_ai.evaluation.name": "correct", "gen_ai.evaluation.score.value": 1.0}
    of_a_step = {**attributes, "gen_ai.evaluation.name": "step"}
    with receiving.server(settle=1000.0) as send:
        records = logs(
            event("gen_ai.evaluation.result", span=0, **attributes),
            event("gen_ai.evaluation.result", span=2, **of_a_step),
            event("something.else", span=0),
        )
        for _ in range(2):
            otlp.post(f"{send.endpoint}/v1/logs", records.SerializeToString())
        send(otlp.request(otlp.span(1, "POST /ask", {}), otlp.span(2, "chat", CURRENT, parent=1)))

    rollout, _ = receiving.one()
    assert {(it.name, it.value, it.span_id) for it in rollout.rewards} == {
        ("correct", 1.0, None),
        ("step", 1.0, "0000000000000002"),
    }


CHAT = [
    *MESSAGES,
    {"role": "assistant", "content": "Hm.", "reasoning_content": "1 + 1 is 2", "tool_calls": [CALL]},
    {
        "role": "user",
        "content": [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": "http://x/y.png"}}],
    },
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    {"role": "user", "name": "ann", "content": "Hi."},
]


def test_messages_come_back_as_they_went():
    assert chat_messages(gen_ai_messages(CHAT)) == CHAT


def test_parts_of_unknown_types_are_kept():
    parts = [part("text", content="See"), part("server_tool_call", id="1", name="search")]
    assert chat_messages([{"role": "assistant", "parts": parts}]) == [
        {"role": "assistant", "content": [{"type": "text", "text": "See"}, parts[1]]}
    ]
