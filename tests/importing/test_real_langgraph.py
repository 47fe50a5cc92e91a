"""Runs that LangChain's own tracer makes of a real agent say the same as our adapter of LangGraph records of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from importing_files import Imports
from recorded import Recorded, installed, record

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tracers.base import BaseTracer
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentlightning.records import Span
from agentlightning_langgraph.adapter import LangGraphAdapter


class Model(GenericFakeChatModel):
    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **options)


class Tracer(BaseTracer):
    """Keeps what LangSmith's tracer sends."""

    def __init__(self) -> None:
        super().__init__(_schema_format="original+chat")
        self.roots: list[Any] = []

    def _persist_run(self, run: Any) -> None:
        self.roots.append(run)

    def rows(self) -> Iterator[str]:
        waiting = list(self.roots)
        while waiting:
            run = waiting.pop(0)
            waiting += run.child_runs
            excluded = {"child_runs", "parent_run", "client", "ls_client"}
            yield json.dumps(run.model_dump(mode="json", exclude=excluded, fallback=str))


def search(query: str) -> str:
    """Searches."""
    return "Goethe"


def run_agent(name: str | None) -> tuple[Recorded, Tracer]:
    call = {"name": "search", "args": {"query": "Faust"}, "id": "c1"}
    used = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    answers = [AIMessage("", tool_calls=[call], usage_metadata=used), AIMessage("Goethe wrote it.")]
    tracer = Tracer()
    with installed(LangGraphAdapter()), record() as recorded:
        agent = create_agent(Model(messages=iter(answers)), [search], system_prompt="Be right.", name=name)
        agent.invoke({"messages": [("user", "Who wrote Faust?")]}, {"callbacks": [tracer]})
    return recorded, tracer


def said(span: Span) -> Any:
    """What a call says, however the arguments of tools are spaced, and whether no text is empty or none."""
    call = span.generation
    if call is None:
        return None
    return [_of_message(message) for message in [*call.messages, call.response]], call.tools, call.usage


def _of_message(message: dict[str, Any]) -> Any:
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    return message["role"], message["content"] or "", calls, message.get("tool_call_id")


@pytest.mark.parametrize("name", [None, "librarian"])
async def test_an_import_says_what_the_adapter_records(imports: Imports, name: str | None) -> None:
    recorded, tracer = run_agent(name)
    await imports.read(imports.write("runs.jsonl", *tracer.rows()))
    (rollout,) = await imports.rollouts()
    spans = await imports.store.spans(rollout.id)
    assert [(span.kind, span.agent) for span in spans] == [(span.kind, span.agent) for span in recorded.spans]
    assert [said(span) for span in spans] == [said(span) for span in recorded.spans]
    assert rollout.output["messages"][-1]["content"] == "Goethe wrote it."
