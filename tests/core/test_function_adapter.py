"""Plain functions as agents."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import subprocess
import sys
import textwrap
import threading

import pytest

from agentlightning.function_adapter import FunctionAdapter
from agentlightning.recording import Recorder, current, recording, span
from agentlightning.records import Span

who = contextvars.ContextVar("who", default="nobody")


def double(value: int) -> int:
    return 2 * value


async def double_later(value: int) -> int:
    await asyncio.sleep(0)
    return 2 * value


class Doubler:
    def __call__(self, value: int) -> int:
        return 2 * value


class LaterDoubler:
    async def __call__(self, value: int) -> int:
        return await double_later(value)


@pytest.mark.parametrize(
    "agent",
    [
        double,
        double_later,
        Doubler(),
        LaterDoubler(),
        functools.partial(double_later),
        lambda value: double_later(value),
    ],
    ids=["sync", "async", "object", "async object", "partial of async", "returns a coroutine"],
)
async def test_runs_every_kind_of_callable(agent: object) -> None:
    adapter = FunctionAdapter()
    assert adapter.accepts(agent)
    assert await adapter.run(agent, 21) == 42


@pytest.mark.parametrize("agent", [Doubler, 3, "double"], ids=["class", "number", "string"])
def test_refuses_what_is_no_function(agent: object) -> None:
    assert not FunctionAdapter().accepts(agent)


async def test_a_sync_agent_runs_in_a_daemon_thread_with_the_context() -> None:
    who.set("this rollout")
    seen = await FunctionAdapter().run(lambda _: (who.get(), threading.current_thread().daemon), None)
    assert seen == ("this rollout", True)


async def test_an_exception_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        await FunctionAdapter().run(lambda value: value / 0, 1)


@pytest.mark.parametrize(
    ("agent", "name"),
    [(double, "double"), (double_later, "double_later"), (functools.partial(double), "double"), (Doubler(), "Doubler")],
)
async def test_a_run_is_a_span_and_what_happens_in_it_has_the_functions_name(agent: object, name: str) -> None:
    spans: list[Span] = []

    def asks(value: int) -> int:
        recorder = current()
        assert recorder is not None
        recorder.end(recorder.start("llm", "chat"))
        return value

    with recording(Recorder("r", 1, spans.extend)):
        await FunctionAdapter().run(agent, 21)
        await FunctionAdapter().run(asks, 21)
    assert [(span.kind, span.name, span.agent) for span in spans] == [
        ("agent", name, name),
        ("llm", "chat", "asks"),
        ("agent", "asks", "asks"),
    ]
    assert spans[1].parent_id == spans[2].id


async def test_calls_in_a_span_by_hand_are_those_of_the_agent_that_it_names() -> None:
    spans: list[Span] = []

    def asks(value: int) -> int:
        recorder = current()
        assert recorder is not None
        with span("teacher", agent="teacher"):
            recorder.end(recorder.start("llm", "chat"))
        return value

    with recording(Recorder("r", 1, spans.extend)):
        await FunctionAdapter().run(asks, 21)
    assert [(one.kind, one.agent) for one in spans] == [("llm", "teacher"), ("agent", "teacher"), ("agent", "asks")]


async def test_a_run_that_is_given_up_was_cancelled() -> None:
    spans: list[Span] = []
    with recording(Recorder("r", 1, spans.extend)), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await FunctionAdapter().run(asyncio.sleep, 60)
    assert [(span.name, span.failure and span.failure.type) for span in spans] == [("sleep", "cancelled")]


async def test_a_recorder_that_fails_harms_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the recorder is broken")

    for name in ("start", "end"):
        monkeypatch.setattr(Recorder, name, broken)
    with recording(Recorder("r", 1, lambda spans: None)):
        assert await FunctionAdapter().run(double, 21) == 42


async def test_any_number_of_sync_agents_wait_at_the_same_time() -> None:
    barrier = threading.Barrier(100, timeout=30)
    await asyncio.gather(*(FunctionAdapter().run(lambda _: barrier.wait(), None) for _ in range(100)))


def test_an_agent_that_never_returns_does_not_hang_the_interpreter() -> None:
    program = """
        import asyncio, threading
        from agentlightning.function_adapter import FunctionAdapter

        async def main():
            try:
                async with asyncio.timeout(0.01):
                    await FunctionAdapter().run(lambda _: threading.Event().wait(), None)
            except TimeoutError:
                print("gave up")

        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "gave up\n"
    assert done.returncode == 0
