"""A receiver may be stopped between any two of its steps: the next one ends what is left, and what is healthy."""

from __future__ import annotations

import asyncio

import pytest

from agentlightning.errors import StoreBusyError
from agentlightning.records import Rollout, Span
from agentlightning.store import RunRecord, open_store
from agentlightning_otel.incoming import read_traces
from agentlightning_otel.receiver import ALGORITHM, Receiver

CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "solver"}
LOST, HEALTHY = "1" * 32, "2" * 32


def queued(trace: str) -> Rollout:
    return Rollout(id=trace, run_id="otel-agent", group_id=trace, task_id=trace, purpose="observe")


def annotation(trace: str, *, attempt: int, id: str = "5" * 16) -> Span:
    return Span(id=id, rollout_id=trace, attempt=attempt, kind="annotation", name="step", started_at=1.0, ended_at=2.0)


def leave(url: str, *rollouts: Rollout, leases: int = 0, spans: tuple[Span, ...] = ()) -> None:
    """A store as a receiver leaves it that is killed: rollouts queued, leased so often, with so many spans."""

    async def write() -> None:
        store = open_store(url)
        await store.open_run(RunRecord(id="otel-agent", name="agent", algorithm=ALGORITHM, created_at=1.0))
        await store.enqueue(rollouts)
        for _ in range(leases):
            await store.lease("another", ids=[it.id for it in rollouts], limit=len(rollouts), seconds=-1.0)
        store.add_spans(spans)
        await store.close()

    asyncio.run(write())


@pytest.mark.parametrize("leases", [0, 1, 3])
def test_killed_before_the_first_span_the_rollout_ends_and_a_healthy_one_behind_it(receiving, otlp, leases):
    leave(receiving.url, queued(LOST), leases=leases)

    with receiving.server(settle=1000.0) as send:
        assert send(otlp.request(otlp.span(1, "chat", CALL, trace=HEALTHY))).status == 200
    receiving.receive()  # and once more: it stays ended

    lost, healthy = receiving.read().rollouts
    assert (lost.id, lost.status, lost.failure.type, lost.failure.fault) == (
        LOST,
        "failed",
        "nothing_received",
        "infrastructure",
    )
    assert not lost.is_scorable
    assert (healthy.id, healthy.status) == (HEALTHY, "succeeded")
    assert receiving.read().run.status == "succeeded"


def test_what_was_not_acknowledged_is_sent_again_and_makes_the_rollout(receiving, otlp):
    leave(receiving.url, queued(LOST), leases=1)

    receiving.receive(otlp.request(otlp.span(1, "chat", CALL, trace=LOST)))

    rollout, spans = receiving.one()
    assert (rollout.status, [span.name for span in spans]) == ("succeeded", ["chat"])


@pytest.mark.parametrize("copied", [0, 1, 2], ids=["none of them", "some of them", "all of them"])
def test_killed_while_it_took_up_what_an_earlier_one_had_left(receiving, copied):
    """Spans of attempt 1 are being made those of attempt 2."""
    ids = ["5" * 16, "6" * 16]
    first = tuple(annotation(LOST, attempt=1, id=id) for id in ids)
    second = tuple(annotation(LOST, attempt=2, id=id) for id in ids[:copied])
    leave(receiving.url, queued(LOST), leases=2, spans=(*first, *second))

    receiving.receive()

    rollout, spans = receiving.one()
    assert (rollout.status, rollout.attempt, [span.id for span in spans]) == ("succeeded", 3, ids)


def test_killed_after_some_spans_the_others_join_them(receiving, otlp):
    root = otlp.span(1, "invoke_agent solver", AGENT, at=(100.0, 110.0), events=[otlp.evaluation("correct", 1.0)])
    leave(receiving.url, queued(otlp.TRACE), leases=1, spans=(annotation(otlp.TRACE, attempt=1),))

    receiving.receive(otlp.request(otlp.span(2, "chat", CALL, parent=1), root))

    rollout, spans = receiving.one()
    assert sorted(span.name for span in spans) == ["chat", "correct", "solver", "step"]
    assert (rollout.status, rollout.outcome) == ("succeeded", 1.0)


def test_finished_but_not_acknowledged_it_is_sent_again_to_no_effect(receiving, otlp):
    request = otlp.request(otlp.span(1, "chat", CALL, events=[otlp.evaluation("correct", 1.0)]))
    receiving.receive(request)
    before = receiving.one()

    receiving.receive(request)

    assert receiving.one() == before


def test_a_rollout_that_another_process_holds_is_left_to_it_and_the_others_are_received(receiving, otlp):
    """Two services of one trace send to two receivers."""

    async def both() -> tuple[str, list[str]]:
        one, other = open_store(receiving.url), open_store(receiving.url)
        async with Receiver(one, run="front") as front:
            await front.receive(read_traces(otlp.request(otlp.span(1, "chat", CALL, trace=LOST))).spans)
            error = ""
            async with Receiver(other, run="tools") as tools:
                mixed = (otlp.span(2, "tool", CALL, trace=LOST), otlp.span(3, "chat", CALL, trace=HEALTHY))
                try:
                    await tools.receive(read_traces(otlp.request(*mixed)).spans)
                except StoreBusyError as raised:
                    error = str(raised)
        found = [it.id for it in await other.rollouts("otel-tools")]
        await one.close()
        await other.close()
        return error, found

    error, found = asyncio.run(both())
    assert f"rollout {LOST} is being received by another process" in error
    assert found == [HEALTHY]
    assert receiving.one("otel-front")[0].status == "succeeded"


def test_a_trace_that_cannot_be_concluded_ends_all_the_same_and_those_behind_it(receiving, otlp, monkeypatch):
    def outcome_of(spans):
        raise ZeroDivisionError("odd")

    with receiving.server(settle=1000.0) as send:
        send(otlp.request(otlp.span(1, "chat", CALL, trace=LOST), otlp.span(1, "chat", CALL, trace=HEALTHY)))
        monkeypatch.setattr("agentlightning_otel.receiver.outcome_of", outcome_of)

    rollouts = receiving.read().rollouts
    assert [(it.status, it.failure.type, it.failure.fault) for it in rollouts] == [
        ("failed", "unreadable_trace", "infrastructure")
    ] * 2
    assert "ZeroDivisionError: odd" in rollouts[0].failure.message


def test_clocks_that_differ_by_hours_make_one_rollout(receiving, otlp):
    early = otlp.span(2, "chat", CALL, parent=1, at=(0.5, 0.6))
    root = otlp.span(1, "invoke_agent solver", AGENT, at=(40_000.0, 40_001.0))
    late = otlp.span(3, "chat", CALL, parent=1, at=(4e9, 4e9 + 1))
    receiving.receive(otlp.request(late), otlp.request(early), otlp.request(root))

    rollout, spans = receiving.one()
    assert [span.name for span in spans] == ["solver", "chat", "chat"]
    assert (rollout.status, rollout.started_at, rollout.ended_at) == ("succeeded", 0.5, pytest.approx(4e9 + 1))


def test_an_empty_request_leaves_nothing_open(receiving, otlp):
    receiving.receive(otlp.request(), otlp.request(otlp.span(1, "GET /", {"http.route": "/"})))
    with pytest.raises(AssertionError, match="no run otel-agent"):
        receiving.read()
