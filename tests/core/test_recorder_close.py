"""What becomes of the spans that are open when a rollout ends, and of those in a generator that its reader leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

from recorded import Recorded, record

import agentlightning as agl
from agentlightning.records import Failure, Generation


def failures(recorded: Recorded) -> dict[str, str | None]:
    return {span.name: span.failure.type if span.failure else None for span in recorded.spans}


def test_agents_left_by_one_that_returned_have_not_failed():
    recorded = Recorded()
    team = recorded.recorder.start("agent", "team")
    recorded.recorder.start("agent", "writer", parent=team)
    recorded.close()
    assert failures(recorded) == {"team": None, "writer": None}
    assert all(span.ended_at is not None for span in recorded.spans)


def test_a_tool_that_runs_is_cut_off_and_so_are_the_agents_around_it():
    recorded = Recorded()
    start = recorded.recorder.start
    team = start("agent", "team")
    start("tool", "search", parent=start("agent", "writer", parent=team))
    start("agent", "critic", parent=team)
    recorded.close()
    cut = "cancelled"
    assert failures(recorded) == {"team": cut, "writer": cut, "search": cut, "critic": None}


def test_a_call_that_was_not_answered_is_cut_off_and_its_agent_just_left():
    recorded = Recorded()
    recorded.recorder.start("llm", "chat", parent=recorded.recorder.start("agent", "writer"))
    recorded.close()
    assert failures(recorded) == {"writer": None, "chat": "cancelled"}


def test_nothing_is_just_left_by_a_rollout_that_failed():
    recorded = Recorded()
    recorded.recorder.start("agent", "team")
    recorded.recorder.close(Failure(type="timeout", message="too long"))
    assert failures(recorded) == {"team": "cancelled"}


async def words() -> AsyncIterator[str]:
    with agl.span("telling"):
        yield "One,"
        yield "two."


async def read_one() -> None:
    async for _ in words():
        return


def test_a_span_in_a_generator_that_is_left_has_not_failed():
    def letters() -> Iterator[str]:
        with agl.span("spelling"):
            yield "a"
            yield "b"

    with record() as recorded:
        next(letters())
    assert failures(recorded) == {"spelling": None}


async def test_a_span_in_an_asynchronous_generator_that_is_left_has_not_failed(caplog):
    for _ in range(2):  # what other tests left behind closes itself in a task, and its errors are told with that
        gc.collect()
        await asyncio.sleep(0.01)
    caplog.clear()
    with record() as recorded:
        await read_one()
        await asyncio.sleep(0.01)  # the loop closes the generator, in a context of its own
    assert failures(recorded) == {"telling": None}
    assert caplog.records == []


def test_nor_where_the_event_loop_ends_with_the_agent():
    with record() as recorded:
        asyncio.run(read_one())
    assert failures(recorded) == {"telling": None}


def test_what_is_cancelled_in_a_generator_that_is_left_has_not_failed():
    recorded = Recorded()
    start, end = recorded.recorder.start, recorded.recorder.end
    stream = start("agent", "stream")
    node = start("agent", "node", parent=stream)
    cancelled = Failure(type="cancelled", message="CancelledError")
    call = start("llm", "call", parent=node)
    call.generation = Generation(messages=[], response={"role": "assistant", "content": "One,"})
    end(call, cancelled)
    end(start("llm", "unanswered", parent=node), cancelled)
    end(start("tool", "search", parent=node), cancelled)
    end(node, cancelled)
    assert recorded.spans == [], "whether it has failed, what it is in will tell"
    end(stream, left=True)
    cut = "cancelled"
    assert failures(recorded) == {"call": None, "unanswered": cut, "search": cut, "node": None, "stream": None}
    assert recorded.recorder.failures == [cancelled, cancelled]


def test_what_is_cancelled_in_what_goes_on_has_failed():
    recorded = Recorded()
    start, end = recorded.recorder.start, recorded.recorder.end
    agent = start("agent", "agent")
    end(start("tool", "slow", parent=agent), Failure(type="cancelled", message="CancelledError"))
    end(agent)
    assert failures(recorded) == {"slow": "cancelled", "agent": None}


def test_nor_has_what_is_cancelled_after_its_generator_was_left():
    recorded = Recorded()
    start, end = recorded.recorder.start, recorded.recorder.end
    stream = start("agent", "stream")
    node = start("agent", "node", parent=stream)
    call = start("llm", "call", parent=node)
    call.generation = Generation(messages=[], response={"role": "assistant", "content": "One,"})
    end(stream, left=True)
    cancelled = Failure(type="cancelled", message="CancelledError")
    end(call, cancelled)
    end(node, cancelled)
    assert failures(recorded) == {"stream": None, "call": None, "node": None}
