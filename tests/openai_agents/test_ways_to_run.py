"""Runs that the user's own code starts, many at once, without tracing, without a rollout; and hooks taken out again."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    MaxTurnsExceeded,
    RunConfig,
    Runner,
    SQLiteSession,
    add_trace_processor,
    set_trace_processors,
    set_tracing_disabled,
    trace,
)
from agents.tracing import TracingProcessor, get_trace_provider, set_trace_provider
from agents.tracing.processors import default_processor
from agents.tracing.provider import DefaultTraceProvider
from openai import AsyncOpenAI
from stub_answers import text

from agentlightning.adapter import supports
from agentlightning.function_adapter import FunctionAdapter
from agentlightning_openai.router import PLACEHOLDER_KEY
from agentlightning_openai_agents import hooks, internals, span_stack
from agentlightning_openai_agents.adapter import OpenAIAgentsAdapter

SOLVED = [
    "workflow Agent workflow [Agent workflow]",
    "  agent solver [solver]",
    "    turn turn 1 [solver]",
    "      llm chat own-model [solver]",
]


@pytest.fixture(autouse=True)
def another_provider() -> Any:
    """A provider of traces for one test, so that no processor of it is left to the next."""
    before = get_trace_provider()
    yield
    set_trace_provider(before)


class Listening(TracingProcessor):
    """A processor of the user's own, or one that stands where the SDK's exporter does."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_trace_start(self, trace: Any) -> None:
        self.heard.append(trace.name)

    def on_trace_end(self, trace: Any) -> None: ...

    def on_span_start(self, span: Any) -> None: ...

    def on_span_end(self, span: Any) -> None:
        self.heard.append(span.span_data.type)

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


async def test_functions_without_a_loop_may_run_agents_with_one_client_at_once(make, stub, rollout):
    agent = make("solver")

    def solve(question: str) -> Any:
        return Runner.run_sync(agent, question).final_output

    async def one(number: int) -> tuple[Any, Any]:
        with rollout(f"r{number}") as ran:
            output = await FunctionAdapter().run(solve, f"question {number}")
        return output, ran

    stub.reply(lambda request: text(request.json["input"][0]["content"]))
    for number, (output, ran) in enumerate([*await asyncio.gather(*map(one, range(16))), await one(16)]):
        assert output == f"question {number}"
        assert {span.rollout_id for span in ran.spans} == {f"r{number}"}
        assert ran.outline() == ["function solve [solve]", *(f"  {line}" for line in SOLVED)]


async def test_what_a_run_without_a_loop_raises_comes_out_of_it(make, rollout):
    with rollout(), pytest.raises(MaxTurnsExceeded):
        await asyncio.to_thread(Runner.run_sync, make("solver"), "?", max_turns=0)


def test_outside_of_a_rollout_run_sync_is_the_sdks_own(make, stub):
    stub.reply(text("5"))
    assert Runner.run_sync(make("solver"), "?").final_output == "5"


async def test_a_stream_that_is_left_early_ends_its_spans_without_a_failure(make, stub, rollout):
    stub.reply(text("a long answer"))
    with rollout() as ran:
        result = Runner.run_streamed(make("solver"), "?")
        async for _ in result.stream_events():
            result.cancel(mode="after_turn")
    assert ran.outline() == SOLVED
    assert [span.failure for span in ran.spans] == [None] * 4


async def test_a_session_of_the_users_own_is_one_of_the_rollouts(make, stub, rollout):
    async def chat(question: str) -> Any:
        session = SQLiteSession("chat")
        for said in (question, "And now?"):
            result = await Runner.run(make("solver"), said, session=session)
        return result.final_output

    stub.reply(lambda request: text(str(len(request.json["input"]))))

    async def one(number: int) -> Any:
        with rollout(f"r{number}"):
            return await FunctionAdapter().run(chat, f"question {number}")

    assert await asyncio.gather(*map(one, range(8))) == ["3"] * 8


async def test_rollouts_that_give_their_traces_one_id_keep_them_apart(make, stub, rollout):
    async def one(number: int) -> Any:
        with rollout(f"r{number}") as ran, trace("office", trace_id="trace_same"):
            await Runner.run(make(f"agent {number}"), "?")
        return ran

    for number, ran in enumerate(await asyncio.gather(*map(one, range(8)))):
        assert {span.rollout_id for span in ran.spans} == {f"r{number}"}
        assert [line.strip() for line in ran.outline()] == [
            "workflow office [office]",
            f"agent agent {number} [agent {number}]",
            f"turn turn 1 [agent {number}]",
            f"llm chat own-model [agent {number}]",
        ]


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What our code warned of."""
    span_stack._warn_of_disabled_tracing.cache_clear()
    span_stack._warn_of_lost_processor.cache_clear()
    supports.cache_clear()
    found = functools.partial(filter, lambda record: record.name.startswith("agentlightning"))
    yield lambda: [record.getMessage() for record in found(caplog.records) if record.levelno >= logging.WARNING]
    supports.cache_clear()


@pytest.mark.parametrize("how", ["run", "everywhere", "streamed"])
async def test_without_tracing_model_calls_are_recorded_alone_with_one_warning(make, rollout, stub, warnings, how):
    config = RunConfig(tracing_disabled=how != "everywhere")
    if how == "everywhere":
        set_tracing_disabled(True)
    try:
        with rollout() as ran:
            for _ in range(2):
                if how == "streamed":
                    async for _ in Runner.run_streamed(make("solver"), "?", run_config=config).stream_events():
                        pass
                else:
                    await Runner.run(make("solver"), "?", run_config=config)
    finally:
        set_tracing_disabled(False)
    assert ran.outline() == ["llm chat own-model [None]"] * 2
    (warning,) = warnings()
    assert "tracing of the OpenAI Agents SDK is disabled" in warning


async def test_another_version_of_the_sdk_leaves_model_calls_alone_with_one_warning(
    adapter, make, rollout, warnings, monkeypatch
):
    adapter.uninstall()
    monkeypatch.setattr(adapter, "versions", ("openai-agents", "99", "100"))
    adapter.install()
    adapter.install()
    with rollout() as ran:
        await adapter.run(make("solver"), "?")
    assert ran.outline() == ["llm chat own-model [None]"]
    (warning,) = warnings()
    assert "openai-agents" in warning
    assert "only its model calls" in warning


async def test_processors_replaced_after_it_was_installed_are_warned_of(adapter, make, rollout, warnings):
    set_trace_provider(DefaultTraceProvider())
    with rollout() as ran:
        await adapter.run(make("solver"), "?")
    assert ran.outline() == ["llm chat own-model [None]"]
    (warning,) = warnings()
    assert "set_trace_processors" in warning
    adapter.install()
    with rollout() as ran:
        await adapter.run(make("solver"), "?")
    assert ran.outline() == SOLVED


async def test_installed_twice_it_records_once(adapter, make, rollout):
    adapter.install()
    OpenAIAgentsAdapter().install()
    with rollout() as ran:
        await adapter.run(make("solver"), "?")
    assert ran.outline() == SOLVED


async def test_taken_out_it_leaves_nothing(adapter, make, rollout):
    adapter.uninstall()
    assert not {"on_trace_start", "on_span_end"} & set(vars(default_processor()))
    assert vars(Runner)["run_sync"].__func__.__module__ == "agents.run"
    with rollout() as ran:
        await adapter.run(make("solver"), "?")
    assert ran.outline() == ["llm chat own-model [None]"]


async def test_traces_of_a_rollout_are_not_sent_and_the_users_processors_hear_them(
    adapter, make, rollout, stub, monkeypatch
):
    exporter, own = Listening(), Listening()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own")
    monkeypatch.setattr("agents.tracing.processors._global_processor", exporter)
    set_trace_provider(DefaultTraceProvider())
    set_trace_processors([exporter])
    add_trace_processor(own)
    adapter.install()
    heard = ["Agent workflow", "response", "turn", "agent", "task"]
    with rollout():
        await adapter.run(make("solver"), "?")
    assert (exporter.heard, own.heard) == ([], heard)
    await adapter.run(make("solver"), "?")
    assert (exporter.heard, own.heard) == (heard, heard * 2)
    monkeypatch.setenv("OPENAI_API_KEY", PLACEHOLDER_KEY)
    await adapter.run(make("solver"), "?")
    assert (exporter.heard, own.heard) == (heard, heard * 3)


async def test_without_the_sdks_private_parts_the_rest_is_recorded(
    adapter, make, add, stub, calls, rollout, warnings, monkeypatch
):
    adapter.uninstall()
    monkeypatch.delattr("agents.tracing.processors.default_processor")
    adapter.install()
    stub.reply(calls(("add", '{"a": 2, "b": 3}')), text("5"))
    with rollout() as ran:
        await adapter.run(make("solver", tools=[add]), "?")
    assert ran.only("tool").failure is None
    assert "default_processor" in warnings()[0]


def test_a_span_that_cannot_be_watched_is_warned_of(warnings):
    class Slotted:
        __slots__ = ()

        def set_error(self, error: Any) -> None: ...

    internals.watch_errors(Slotted(), lambda: None)
    assert "without their exception" in warnings()[0]


async def test_a_hook_that_raises_is_logged_and_the_agent_goes_on(adapter, make, rollout, stub, caplog, monkeypatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("a hook of ours is broken")

    monkeypatch.setattr(hooks, "begin", broken)
    stub.reply(text("5"))
    with rollout() as ran:
        assert await adapter.run(make("solver"), "?") == "5"
    assert "a hook of ours is broken" in caplog.text
    assert ran.outline() == ["llm chat own-model [None]"]


async def test_a_call_outside_of_any_agent_belongs_to_nobody(client: AsyncOpenAI, rollout):
    with rollout() as ran:
        await client.responses.create(model="own-model", input="?")
    assert ran.outline() == ["llm chat own-model [None]"]
