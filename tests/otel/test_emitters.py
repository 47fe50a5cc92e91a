"""Emitters with names of their own: the same model calls, tools and agents as under the conventions' names."""

from __future__ import annotations

import json

import pytest

from agentlightning_otel.incoming import read_span

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Tells.", "parameters": SCHEMA}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Rome?"}]
ASKING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
TOLD = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "blue"}'}
ANSWER = {"role": "assistant", "content": "Blue."}

# The Vercel AI SDK. Version 4 calls a tool's input args and its output result; 3 has ai.result.*.
PROMPT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
]


def vercel_turn(version: int) -> list[dict]:
    given, made = ("input", "output") if version > 4 else ("args", "result")
    result = {"type": "json", "value": {"sky": "blue"}} if version > 4 else {"sky": "blue"}
    call = {"type": "tool-call", "toolCallId": "call_1", "toolName": "weather", given: {"city": "Rome"}}
    answer = {"type": "tool-result", "toolCallId": "call_1", "toolName": "weather", made: result}
    return [{"role": "assistant", "content": [call]}, {"role": "tool", "content": [answer]}]


def vercel_call(version: int, operation: str, messages: list[dict], answer: dict) -> dict:
    schema = {"inputSchema": SCHEMA} if version > 4 else {"parameters": SCHEMA}
    tool = {"type": "function", "name": "weather", "description": "Tells.", **schema}
    tokens = (
        {"ai.usage.promptTokens": 9, "ai.usage.completionTokens": 4}
        if version == 3
        else {"gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 4}
    )
    return {
        "operation.name": f"{operation} forecaster",
        "ai.operationId": operation,
        "ai.telemetry.functionId": "forecaster",
        "ai.model.id": "small",
        "ai.model.provider": "openai.chat",
        "ai.settings.maxRetries": 2,
        "ai.prompt.messages": json.dumps(messages),
        "ai.prompt.tools": [json.dumps(tool)],
        "ai.prompt.toolChoice": '{"type":"auto"}',
        "gen_ai.system": "openai.chat",
        "gen_ai.request.model": "small",
        "gen_ai.request.temperature": 0.5,
        **tokens,
        **answer,
    }


def vercel_trace(otlp, version: int, way: str) -> list:
    """A run with one tool: two calls of the model, the tool between them, and the whole around them."""
    whole, inner = ("ai.streamText", "doStream") if way == "stream" else ("ai.generateText", "doGenerate")
    given = "input" if version > 4 else "args"
    calls = json.dumps([{"toolCallId": "call_1", "toolName": "weather", given: '{"city": "Rome"}'}])
    at = "ai.result" if version == 3 else "ai.response"
    ended = "ai.finishReason" if version == 3 else "ai.response.finishReason"
    asking = {f"{at}.toolCalls": calls, ended: "tool-calls", "gen_ai.response.finish_reasons": ["tool-calls"]}
    answer = {f"{at}.text": "Blue.", ended: "stop", "gen_ai.response.finish_reasons": ["stop"]}
    if version > 3:
        answer["gen_ai.response.model"] = "small-1"
    outer = {
        "ai.operationId": whole,
        "operation.name": f"{whole} forecaster",
        "ai.telemetry.functionId": "forecaster",
        "ai.model.id": "small",
        "ai.prompt": json.dumps({"system": "Be brief.", "prompt": "Weather in Rome?"}),
        "ai.usage.promptTokens": 18,
        "ai.usage.completionTokens": 8,
        **{name: value for name, value in answer.items() if name.startswith("ai.")},
    }
    tool = {
        "ai.operationId": "ai.toolCall",
        "operation.name": "ai.toolCall forecaster",
        "ai.toolCall.name": "weather",
        "ai.toolCall.id": "call_1",
        "ai.toolCall.args": '{"city":"Rome"}',
        "ai.toolCall.result": '{"sky":"blue"}',
    }
    name = f"{whole}.{inner}"
    return [
        otlp.span(1, whole, outer, at=(100.0, 110.0)),
        otlp.span(2, name, vercel_call(version, name, PROMPT, asking), parent=1),
        otlp.span(3, "ai.toolCall", tool, parent=1),
        otlp.span(4, name, vercel_call(version, name, [*PROMPT, *vercel_turn(version)], answer), parent=1),
    ]


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("way", ["whole", "stream"])
def test_the_vercel_ai_sdks_spans_are_model_calls_tools_and_an_agents_run(receiving, otlp, version, way):
    receiving.receive(otlp.request(*vercel_trace(otlp, version, way)))

    rollout, spans = receiving.one()
    whole, first, tool, second = spans
    assert [(span.kind, span.agent) for span in spans] == [
        ("agent", "forecaster"),
        ("llm", "forecaster"),
        ("tool", "forecaster"),
        ("llm", "forecaster"),
    ]
    assert whole.name == ("ai.streamText" if way == "stream" else "ai.generateText")
    assert (tool.name, tool.attributes["gen_ai.tool.call.id"]) == ("weather", "call_1")
    assert tool.attributes["gen_ai.tool.call.arguments"] == {"city": "Rome"}
    assert tool.attributes["gen_ai.tool.call.result"] == {"sky": "blue"}
    assert (first.generation.messages, first.generation.response) == (QUESTION, ASKING)
    assert (second.generation.messages, second.generation.response) == ([*QUESTION, ASKING, TOLD], ANSWER)
    assert [span.generation.finish_reason for span in (first, second)] == ["tool_calls", "stop"]
    assert first.generation.tools == second.generation.tools == TOOLS
    assert [span.generation.usage.output_tokens for span in (first, second)] == [4, 4]
    assert [span.generation.usage.input_tokens for span in (first, second)] == [9, 9]
    assert second.generation.model == ("small" if version == 3 else "small-1")
    assert (second.generation.temperature, second.attributes["gen_ai.provider.name"]) == (0.5, "openai.chat")
    assert (rollout.status, rollout.output) == ("succeeded", "Blue.")
    assert receiving.read().tasks[rollout.task_id].input == "Weather in Rome?"


def test_an_object_that_vercel_made_is_the_answer(otlp):
    answer = {"ai.response.object": '{"city":"Rome"}', "ai.response.finishReason": "stop"}
    operation = "ai.generateObject.doGenerate"
    (span,) = read_span(otlp.span(1, operation, vercel_call(5, operation, PROMPT, answer)))
    assert span.generation.response == {"role": "assistant", "content": '{"city":"Rome"}'}


def test_vercel_told_to_record_neither_input_nor_output_still_tells_of_the_call(otlp):
    operation = "ai.generateText.doGenerate"
    attributes = {
        name: value
        for name, value in vercel_call(5, operation, PROMPT, {"ai.response.finishReason": "length"}).items()
        if not name.startswith("ai.prompt")
    }
    (span,) = read_span(otlp.span(1, operation, attributes))
    assert (span.kind, span.generation.finish_reason, span.generation.usage.output_tokens) == ("llm", "length", 4)
    assert (span.generation.messages, span.generation.response) == ([], None)


def test_tokens_that_vercel_did_not_learn_are_left_out(otlp):
    """Where a provider reports none, version 4 sends NaN."""
    operation = "ai.streamText.doStream"
    tokens = {"ai.usage.promptTokens": float("nan"), "gen_ai.usage.input_tokens": float("nan")}
    dropped: list[str] = []
    (span,) = read_span(otlp.span(1, operation, vercel_call(4, operation, PROMPT, tokens)), dropped)
    assert span.generation.usage.output_tokens == 4
    assert ["gen_ai.usage.input_tokens" in reason for reason in dropped] == [True]


@pytest.mark.parametrize(
    ("operation", "kind"), [("ai.embed.doEmbed", "llm"), ("ai.embed", "annotation"), ("ai.embedMany", "annotation")]
)
def test_an_embedding_of_vercels_is_no_chat(otlp, operation, kind):
    (span,) = read_span(otlp.span(1, operation, {"ai.operationId": operation, "ai.model.id": "e", "ai.value": "x"}))
    assert (span.kind, span.generation) == (kind, None)


# Pydantic AI, whose names were its own before its version 3 of them.
EVENTS = [
    {"event.name": "gen_ai.system.message", "role": "system", "content": "Be brief.", "gen_ai.message.index": 0},
    {"event.name": "gen_ai.user.message", "role": "user", "content": "Weather in Rome?", "gen_ai.message.index": 1},
    {"event.name": "gen_ai.assistant.message", "role": "assistant", "tool_calls": [CALL]},
    {"event.name": "gen_ai.tool.message", "role": "tool", "content": '{"sky": "blue"}', "id": "call_1"},
    {"event.name": "gen_ai.choice", "index": 0, "message": ANSWER},
]


def test_pydantic_ais_first_names(receiving, otlp):
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.usage.output_tokens": 4,
        "events": json.dumps(EVENTS),
    }
    tool = {
        "gen_ai.tool.name": "weather",
        "gen_ai.tool.call.id": "call_1",
        "tool_arguments": '{"city":"Rome"}',
        "tool_response": "blue",
    }
    run = {"model_name": "small", "agent_name": "forecaster", "final_result": "Blue.", "gen_ai.usage.input_tokens": 9}
    receiving.receive(
        otlp.request(
            otlp.span(1, "agent run", {**run, "all_messages_events": json.dumps(EVENTS[:2])}, at=(100.0, 110.0)),
            otlp.span(2, "running tool", tool, parent=1),
            otlp.span(3, "chat small", chat, parent=1),
        )
    )

    rollout, (agent, ran, call) = receiving.one()
    assert [(agent.kind, agent.name), (ran.kind, ran.name), call.kind] == [
        ("agent", "forecaster"),
        ("tool", "weather"),
        "llm",
    ]
    assert ran.attributes["gen_ai.tool.call.arguments"] == {"city": "Rome"}
    assert ran.attributes["gen_ai.tool.call.result"] == "blue"
    assert (call.generation.messages, call.generation.response) == ([*QUESTION, ASKING, TOLD], ANSWER)
    assert (rollout.output, receiving.read().tasks[rollout.task_id].input) == ("Blue.", "Weather in Rome?")


def langchain(name: str, **fields) -> dict:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", name], "kwargs": fields}


LANGSMITH = {
    "as the chat API has it": ({"messages": QUESTION}, {"choices": [{"message": ANSWER, "finish_reason": "stop"}]}),
    "as LangChain serialises it": (
        {
            "messages": [
                [
                    langchain("SystemMessage", content="Be brief.", type="system"),
                    langchain("HumanMessage", content="Weather in Rome?", type="human"),
                ]
            ]
        },
        {"generations": [[{"text": "Blue.", "message": langchain("AIMessage", content="Blue.", type="ai")}]]},
    ),
}


@pytest.mark.parametrize("form", LANGSMITH)
def test_langsmiths_exporter(otlp, form):
    prompt, completion = LANGSMITH[form]
    attributes = {
        "langsmith.span.kind": "llm",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.prompt": json.dumps(prompt),
        "gen_ai.completion": json.dumps(completion),
        "gen_ai.usage.output_tokens": 4,
    }
    (span,) = read_span(otlp.span(1, "ChatOpenAI", attributes))
    assert (span.generation.messages, span.generation.response) == (QUESTION, ANSWER)
    assert span.generation.usage.output_tokens == 4


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("tool", "tool"), ("chain", "agent"), ("retriever", "retrieval"), ("parser", "annotation")],
)
def test_what_a_span_of_langsmiths_is(otlp, kind, expected):
    attributes = {"langsmith.span.kind": kind, "gen_ai.operation.name": kind, "gen_ai.prompt": '{"a": 1}'}
    assert read_span(otlp.span(1, "it", attributes))[0].kind == expected


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"gen_ai.request.model": "small", "gen_ai.usage.input_tokens": 9}, "llm"),
        ({"llm.model_name": "small", "llm.token_count.completion": 9}, "llm"),
        ({"gen_ai.request.model": "small", "gen_ai.response.model": "small-1"}, "llm"),
        ({"gen_ai.request.model": "small"}, "annotation"),
        ({"gen_ai.usage.input_tokens": 9}, "annotation"),
        ({"gen_ai.request.model": "s", "gen_ai.usage.input_tokens": 9, "openinference.span.kind": "X"}, "annotation"),
        ({"gen_ai.request.model": "s", "gen_ai.usage.input_tokens": 9, "gen_ai.operation.name": "x"}, "annotation"),
    ],
)
def test_a_model_and_its_usage_are_a_model_call_where_nothing_says_what_the_span_is(otlp, attributes, kind):
    (span,) = read_span(otlp.span(1, "it", attributes))
    assert (span.kind, span.generation is not None) == (kind, kind == "llm")
