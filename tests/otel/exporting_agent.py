"""An agent of another process, with the SDK and the exporter of OpenTelemetry. It knows nothing of this library.

OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python exporting_agent.py [simple | batch] [number of questions]
"""

from __future__ import annotations

import json
import sys

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

how, count = (*sys.argv[1:], "batch", "1")[:2] if len(sys.argv) != 2 else (sys.argv[1], "1")
processor = {"simple": SimpleSpanProcessor, "batch": BatchSpanProcessor}[how]
provider = TracerProvider(resource=Resource({"service.name": "calculator", "deployment.environment.name": "test"}))
provider.add_span_processor(processor(OTLPSpanExporter(compression=Compression.Gzip)))
tracer = provider.get_tracer("exporting_agent")


def text(role: str, content: str) -> dict:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def ask(messages: list[dict], answer: dict) -> None:
    with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT) as span:
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o-mini",
                "gen_ai.request.temperature": 0.5,
                "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
                "gen_ai.response.finish_reasons": [answer["finish_reason"]],
                "gen_ai.usage.input_tokens": 20,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Use the calculator."}]),
                "gen_ai.input.messages": json.dumps(messages),
                "gen_ai.output.messages": json.dumps([answer]),
            }
        )


def solve(question: str, a: int, b: int) -> None:
    with tracer.start_as_current_span("invoke_agent solver") as agent:
        agent.set_attributes(
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": "solver",
                "gen_ai.conversation.id": "conversation-1",
                "gen_ai.input.messages": json.dumps([text("user", question)]),
            }
        )
        call = {"type": "tool_call", "id": "call_1", "name": "add", "arguments": {"a": a, "b": b}}
        asked = {"role": "assistant", "parts": [call], "finish_reason": "tool_call"}
        ask([text("user", question)], asked)
        with tracer.start_as_current_span("execute_tool add") as tool:
            tool.set_attributes(
                {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": "add",
                    "gen_ai.tool.call.id": "call_1",
                    "gen_ai.tool.call.arguments": json.dumps({"a": a, "b": b}),
                    "gen_ai.tool.call.result": str(a + b),
                }
            )
            tool.add_event(
                "gen_ai.evaluation.result",
                {"gen_ai.evaluation.name": "tool_used", "gen_ai.evaluation.score.value": 0.5},
            )
        with tracer.start_as_current_span("execute_tool lookup") as broken:
            broken.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "lookup"})
            broken.record_exception(KeyError("no such page"))
            broken.set_status(Status(StatusCode.ERROR, "no such page"))
            broken.set_attribute("error.type", "KeyError")
        result = {"type": "tool_call_response", "id": "call_1", "response": str(a + b)}
        messages = [text("user", question), {"role": "assistant", "parts": [call]}, {"role": "tool", "parts": [result]}]
        answer = {**text("assistant", str(a + b)), "finish_reason": "stop"}
        ask(messages, answer)
        agent.set_attribute("gen_ai.output.messages", json.dumps([answer]))
        agent.add_event(
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "correct",
                "gen_ai.evaluation.score.value": 1.0,
                "gen_ai.evaluation.score.label": "correct",
                "gen_ai.evaluation.explanation": "the sum is right",
            },
        )


for number in range(int(count)):
    solve(f"What is {number} + 4?", number, 4)
provider.shutdown()
