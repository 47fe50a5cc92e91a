"""A deployed agent that is recorded: what becomes a rollout, and what of the agent's is in it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from stub_answers import text
from stub_server import StubServer

import agentlightning as agl
from agentlightning.errors import ConfigError
from agentlightning.online.rollout import is_sampled
from agentlightning.records import Rollout, Span
from agentlightning.store import open_store

Recorded = list[tuple[Rollout, list[Span]]]


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as server:
        yield server


@pytest.fixture
def ask(stub: StubServer) -> Callable[[str], str | None]:
    client = openai.OpenAI(base_url=stub.base_url, api_key="sk-a-key-of-the-tests-12345", max_retries=0)

    def call(question: str) -> str | None:
        messages: Any = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="any", messages=messages).choices[0].message.content

    return call


@pytest.fixture
def attach(url: str, tmp_path: Path) -> Iterator[Callable[..., None]]:
    yield lambda **options: agl.attach(url, buffer=tmp_path / "buffer", **options)
    agl.detach()


async def read(url: str) -> Recorded:
    store = open_store(url)
    try:
        return [(one, await store.spans(one.id)) for one in await store.rollouts("live")]
    finally:
        await store.close()


def recorded(url: str) -> Recorded:
    """What was recorded, once it was handed over."""
    agl.detach(timeout=30)
    return asyncio.run(read(url))


def tree(spans: list[Span]) -> list[tuple[str, str, str | None]]:
    return [(span.kind, span.name, span.agent) for span in spans]


def test_a_block_is_a_rollout_with_its_input_calls_and_answer(
    attach: Callable[..., None], ask: Callable[[str], str | None], url: str
) -> None:
    attach()
    with agl.live("support", input="hello?") as run:
        assert run.rollout_id == agl.current_rollout()
        agl.reward(0.5)
        run.output = ask("hello?")
    assert agl.current_rollout() is None
    ((rollout, spans),) = recorded(url)
    assert rollout.id == run.rollout_id
    assert (rollout.status, rollout.output, rollout.outcome, rollout.purpose) == ("succeeded", "Hello.", 0.5, "observe")
    assert tree(spans) == [
        ("agent", "support", "support"),
        ("reward", "reward", "support"),
        ("llm", "chat any", "support"),
    ]

    async def task() -> Any:
        store = open_store(url)
        try:
            (found,) = (await store.tasks("live", [rollout.task_id])).values()
            return found.input
        finally:
            await store.close()

    assert asyncio.run(task()) == "hello?"


def test_a_function_is_a_rollout_at_each_call(
    attach: Callable[..., None], ask: Callable[[str], str | None], url: str
) -> None:
    attach()

    @agl.live
    def solve(question: str) -> str | None:
        return ask(question)

    @agl.live("streamer")
    async def stream(count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def read_stream() -> list[int]:
        return [number async for number in stream(3)]

    assert (solve("a"), solve("b")) == ("Hello.", "Hello.")
    assert asyncio.run(read_stream()) == [0, 1, 2]
    outputs = [(rollout.output, spans[0].agent) for rollout, spans in recorded(url)]
    assert outputs == [("Hello.", "solve"), ("Hello.", "solve"), (2, "streamer")]


def test_what_the_agent_raises_reaches_its_caller_and_is_the_rollouts_failure(
    attach: Callable[..., None], url: str
) -> None:
    attach()
    with pytest.raises(ZeroDivisionError), agl.live("bad", input=1):
        1 / 0  # noqa: B018
    ((rollout, _),) = recorded(url)
    assert rollout.failure is not None
    assert (rollout.status, rollout.failure.type, rollout.failure.message) == (
        "failed",
        "agent_error",
        "division by zero",
    )


async def test_a_task_that_is_cancelled_is_a_cancelled_rollout(attach: Callable[..., None], url: str) -> None:
    attach()
    begun = asyncio.Event()

    @agl.live
    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(agl.detach, 30)
    ((rollout, _),) = await read(url)
    assert rollout.status == "cancelled"


def graph(stub: StubServer) -> Any:
    model = ChatOpenAI(base_url=stub.base_url, api_key="sk-a-key-of-the-tests-12345", model="any")  # type: ignore[arg-type]
    built = StateGraph(MessagesState)
    built.add_node("think", lambda state: {"messages": [model.invoke(state["messages"])]})
    built.add_edge(START, "think")
    return built.compile()


ASK = {"messages": [{"role": "user", "content": "hello?"}]}


def test_each_way_to_run_a_graph_is_one_rollout(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    attach()
    agent = graph(stub)
    stub.reply(*(text(str(number)) for number in range(4)))

    async def use() -> None:
        await agent.ainvoke(ASK)
        assert [item async for item in agent.astream(ASK)]

    agent.invoke(ASK)
    assert list(agent.stream(ASK))
    asyncio.run(use())
    found = recorded(url)
    assert [rollout.status for rollout, _ in found] == ["succeeded"] * 4
    assert {tuple(span.kind for span in spans) for _, spans in found} == {("agent", "agent", "llm")}
    assert [rollout.output.get("messages", [{}])[-1].get("content") for rollout, _ in found[::2]] == ["0", "2"]


def test_a_stream_that_is_left_early_has_not_failed(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    attach()
    stream = graph(stub).stream(ASK)
    next(stream)
    stream.close()
    ((rollout, _),) = recorded(url)
    assert (rollout.status, rollout.failure) == ("succeeded", None)


def test_a_run_within_a_run_is_part_of_it(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    attach(agent="helpdesk")
    agent = graph(stub)
    with agl.live("outer", input=1):
        agent.invoke(ASK)
    ((_, spans),) = recorded(url)
    assert (spans[0].agent, len(spans)) == ("helpdesk", 4)


def test_none_of_a_run_that_is_not_sampled_is_recorded(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    attach(sample=0.0)
    agent = graph(stub)
    with agl.live("outer", input=1) as run:
        assert run.rollout_id is None
        agent.invoke(ASK)
    agl.detach(timeout=30)
    assert not Path(url.removeprefix("sqlite:///")).exists()
    assert len(stub.requests) == 1


def test_which_are_sampled_follows_from_their_ids() -> None:
    ids = [f"{number * 2654435761 % 2**32:08x}{number:08x}" for number in range(2000)]
    chosen = {id for id in ids if is_sampled(id, 0.25)}
    assert 400 < len(chosen) < 600
    assert chosen < {id for id in ids if is_sampled(id, 0.5)}
    assert not any(is_sampled(id, 0.0) for id in ids)
    assert all(is_sampled(id, 1.0) for id in ids)


def test_nothing_is_recorded_before_and_after(attach: Callable[..., None], stub: StubServer, url: str) -> None:
    invoke = vars(type(graph(stub)).__mro__[1])["invoke"]
    with agl.live("before", input=1) as run:
        assert run.rollout_id is None
    attach()
    agl.detach(timeout=30)
    assert vars(type(graph(stub)).__mro__[1])["invoke"] is invoke
    graph(stub).invoke(ASK)
    assert not Path(url.removeprefix("sqlite:///")).exists()


def test_a_buffer_that_is_full_drops_whole_rollouts_and_says_how_many(
    attach: Callable[..., None], url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = sqlite3.connect(url.removeprefix("sqlite:///"))
    lock.execute("CREATE TABLE other (x)")  # no store: nothing can be handed over
    lock.close()
    attach(max_buffer=1024**2)
    for _ in range(3):
        with agl.live("large", input="x" * 300_000) as run:
            run.output = "y"
            agl.annotate("note", text="z" * 200_000)
    agl.detach(timeout=30)
    os.unlink(url.removeprefix("sqlite:///"))
    assert "is full" in caplog.text
    assert len(list((tmp_path / "buffer").glob("*.live"))) == 1
    attach()
    found = recorded(url)
    assert [len(spans) for _, spans in found] == [2]

    async def results() -> dict[str, str]:
        store = open_store(url)
        try:
            run = await store.run("live")
            return run.results if run is not None else {}
        finally:
            await store.close()

    assert list(asyncio.run(results()).values()) == ["2"]


def test_a_buffer_that_cannot_be_written_harms_no_agent(
    attach: Callable[..., None], ask: Callable[[str], str | None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "buffer").write_text("a file where the folder should be")
    attach()
    for _ in range(3):
        with agl.live("support", input="hello?") as run:
            run.output = ask("hello?")
    agl.detach(timeout=30)
    assert run.output == "Hello."
    assert caplog.text.count("cannot be recorded") == 1


def test_attaching_twice_or_with_nonsense_is_refused(attach: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match="sample is a share, 0 to 1, not 2"):
        attach(sample=2)
    with pytest.raises(ConfigError, match="is no URL"):
        agl.attach("runs/store.db")
    with pytest.raises(ConfigError, match="max_buffer is in bytes"):
        attach(max_buffer=1)
    attach()
    with pytest.raises(ConfigError, match=r"call agl\.detach\(\) first"):
        attach()
