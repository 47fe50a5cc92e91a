"""A trace is one rollout, however its pieces come."""

from __future__ import annotations

import itertools
import threading

import msgspec
import pytest
from google.rpc.status_pb2 import Status

from agentlightning_otel.receiver import run_id

AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "solver"}
CALL = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "small"}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"}


@pytest.fixture
def pieces(otlp):
    """A trace of four spans and two evaluations."""
    return [
        otlp.span(1, "invoke_agent solver", AGENT, at=(100.0, 110.0), events=[otlp.evaluation("correct", 1.0)]),
        otlp.span(2, "chat small", CALL, parent=1, at=(101.0, 102.0)),
        otlp.span(3, "execute_tool add", TOOL, parent=1, at=(103.0, 104.0), events=[otlp.evaluation("used", 0.25)]),
        otlp.span(4, "chat small", CALL, parent=3, at=(103.5, 103.8)),
    ]


def plain(recorded):
    """What was recorded, less when it was."""
    rollouts = [msgspec.structs.replace(rollout, created_at=0.0) for rollout in recorded.rollouts]
    return rollouts, recorded.spans, recorded.tasks


def of_trace(piece, trace):
    copy = type(piece).FromString(piece.SerializeToString())
    copy.trace_id = bytes.fromhex(trace)
    return copy


def test_any_order_makes_the_same_rollout(receiving, otlp, pieces):
    orders = {f"{number:032x}": order for number, order in enumerate(itertools.permutations(pieces), 1)}
    receiving.receive(*(otlp.request(of_trace(piece, trace)) for trace, order in orders.items() for piece in order))

    recorded = receiving.read()
    assert sorted(rollout.id for rollout in recorded.rollouts) == list(orders)
    for rollout in recorded.rollouts:
        names = {span.id: span.name for span in recorded.spans[rollout.id]}
        outline = [(it.index, it.kind, it.name, names.get(it.parent_id), it.agent) for it in recorded.spans[rollout.id]]
        assert outline == [
            (0, "agent", "solver", None, "solver"),
            (1, "reward", "correct", "solver", "solver"),
            (2, "llm", "chat small", "solver", "solver"),
            (3, "tool", "add", "solver", "solver"),
            (4, "reward", "used", "add", "solver"),
            (5, "llm", "chat small", "add", "solver"),
        ]
        assert (rollout.status, rollout.outcome, rollout.total_reward) == ("succeeded", 1.0, 1.25)
        assert (rollout.started_at, rollout.ended_at) == (100, 110)


def test_sending_twice_changes_nothing(receiving, otlp, pieces):
    receiving.receive(otlp.request(*pieces))
    before = plain(receiving.read())

    receiving.receive(otlp.request(*pieces), otlp.request(*reversed(pieces)))
    assert plain(receiving.read()) == before

    with receiving.server() as send:
        send(otlp.request(*pieces[:2]), otlp.request(*pieces), otlp.request(pieces[0]))
    assert plain(receiving.read()) == before


def test_spans_that_come_after_the_end_are_added(receiving, otlp, pieces, caplog):
    receiving.receive(otlp.request(pieces[0], pieces[2]))
    before, _ = receiving.one()

    receiving.receive(otlp.request(pieces[3]), otlp.request(pieces[1]))

    rollout, spans = receiving.one()
    assert [(span.index, span.name) for span in spans if span.reward is None] == [
        (0, "solver"),
        (2, "chat small"),
        (3, "add"),
        (5, "chat small"),
    ]
    assert rollout == before
    assert "was finished before" not in caplog.text


def test_a_reward_that_comes_after_the_end_becomes_the_rollouts(receiving, otlp, pieces, caplog):
    receiving.receive(otlp.request(pieces[0]))
    before, _ = receiving.one()
    assert (before.outcome, before.total_reward) == (1.0, 1.0)

    judged = {"gen_ai.evaluation.name": "judge", "gen_ai.evaluation.score.value": 0.5}
    late = [pieces[2], otlp.span(9, "gen_ai.evaluation.result", judged, parent=1)]
    for _ in range(2):
        receiving.receive(otlp.request(*late))

        rollout, spans = receiving.one()
        assert [span.name for span in spans if span.reward is not None] == ["correct", "used", "judge"]
        assert {(it.name, it.value, it.span_id) for it in rollout.rewards} == {
            ("correct", 1.0, None),
            ("judge", 0.5, None),
            ("used", 0.25, pieces[2].span_id.hex()),
        }
        assert (rollout.outcome, rollout.total_reward) == (1.5, 1.75)
    assert (rollout.status, rollout.output, rollout.ended_at) == (before.status, before.output, before.ended_at)
    assert "was finished before" not in caplog.text


def test_a_root_that_comes_after_the_end_changes_no_result_and_is_a_warning(receiving, otlp, pieces, caplog):
    receiving.receive(otlp.request(pieces[1]))
    receiving.receive(otlp.request(pieces[0]))

    rollout, spans = receiving.one()
    assert [(span.name, span.kind) for span in spans] == [
        ("solver", "agent"),
        ("correct", "reward"),
        ("chat small", "llm"),
    ]
    assert (rollout.outcome, rollout.ended_at) == (1.0, 102.0)
    assert f"rollout {rollout.id} was finished before its root had come" in caplog.text
    assert "--settle" in caplog.text


def test_a_later_and_larger_version_of_a_span_loses_nothing(receiving, otlp):
    begun = otlp.span(1, "chat small", {**CALL, "gen_ai.input.messages": '[{"role": "user", "content": "Hi"}]'})
    begun.end_time_unix_nano = 0
    ended = otlp.span(1, "chat small", {**CALL, "gen_ai.output.messages": '[{"role": "assistant", "content": "Ho"}]'})

    receiving.receive(
        *(otlp.request(of_trace(piece, "1" * 32)) for piece in (begun, ended)),
        *(otlp.request(of_trace(piece, "2" * 32)) for piece in (ended, begun)),
    )

    recorded = receiving.read()
    for rollout in recorded.rollouts:
        (span,) = recorded.spans[rollout.id]
        assert span.generation.messages == [{"role": "user", "content": "Hi"}]
        assert span.generation.response == {"role": "assistant", "content": "Ho"}
        assert span.ended_at == pytest.approx(101.5)
    assert len(recorded.rollouts) == 2


def test_two_services_of_one_trace_are_one_rollout(receiving, otlp, pieces):
    receiving.receive(otlp.request(*pieces[:2], service="front"), otlp.request(*pieces[2:], service="tools"))

    rollout, spans = receiving.one("otel-front")
    assert rollout.run_id == "otel-front"
    named = {span.name: span.attributes.get("service.name") for span in spans if span.reward is None}
    assert named == {"solver": None, "chat small": "tools", "add": "tools"}


def test_each_service_has_a_run(receiving, otlp):
    one = otlp.span(1, "chat", CALL, trace="1" * 32)
    other = otlp.span(1, "chat", CALL, trace="2" * 32)
    receiving.receive(otlp.request(one, service="shop/checkout"), otlp.request(other, service="search"))

    assert [it.id for it in receiving.read(run_id("shop/checkout")).rollouts] == ["1" * 32]
    assert [it.id for it in receiving.read("otel-search").rollouts] == ["2" * 32]
    assert run_id("shop/checkout") != run_id("shop-checkout")


def test_one_run_can_be_named_for_everything(receiving, otlp):
    one = otlp.request(otlp.span(1, "chat", CALL, trace="1" * 32), service="a")
    other = otlp.request(otlp.span(1, "chat", CALL, trace="2" * 32), service="b")
    receiving.receive(one, other, run="all")

    assert len(receiving.read("otel-all").rollouts) == 2


def test_a_trace_without_a_model_is_no_rollout(receiving, otlp):
    health = otlp.span(1, "GET /health", {"http.request.method": "GET"}, trace="1" * 32)
    receiving.receive(otlp.request(health, otlp.span(1, "chat", CALL, trace="2" * 32)))

    assert [rollout.id for rollout in receiving.read().rollouts] == ["2" * 32]


def test_what_came_before_the_first_model_call_is_kept_as_annotations(receiving, otlp):
    inner = otlp.span(3, "POST", {"http.request.method": "POST"}, parent=2)
    root = otlp.span(1, "POST /ask", {"http.route": "/ask"}, at=(100.0, 110.0))
    receiving.receive(otlp.request(inner), otlp.request(root), otlp.request(otlp.span(2, "chat", CALL, parent=1)))

    rollout, spans = receiving.one()
    assert [(span.kind, span.name) for span in spans] == [
        ("annotation", "POST /ask"),
        ("llm", "chat"),
        ("annotation", "POST"),
    ]
    assert spans[0].attributes == {"http.route": "/ask"}
    assert rollout.status == "succeeded"


def test_a_rollout_is_open_until_its_trace_has_settled(receiving, otlp, pieces):
    with receiving.server(settle=1000.0) as send:
        send(otlp.request(*pieces))
        rollout, spans = receiving.one()
        assert (rollout.status, len(spans)) == ("running", 6)
        assert receiving.read().run.status == "running"
    rollout, _ = receiving.one()
    assert rollout.status == "succeeded"


def test_a_root_that_never_comes_does_not_hold_its_rollout_up_for_ever(receiving, otlp, pieces):
    receiving.receive(otlp.request(*pieces[1:]))

    rollout, spans = receiving.one()
    assert (rollout.status, rollout.total_reward) == ("succeeded", 0.25)
    assert spans[0].parent_id == (1).to_bytes(8, "big").hex()


def test_rollouts_of_the_same_question_are_one_group(receiving, otlp):
    def asked(text, trace):
        question = {
            "gen_ai.input.messages": f'[{{"role": "user", "parts": [{{"type": "text", "content": "{text}"}}]}}]'
        }
        return otlp.request(otlp.span(1, "invoke_agent solver", {**AGENT, **question}, trace=trace * 32))

    named = otlp.request(otlp.span(1, "invoke_agent solver", {**AGENT, "agentlightning.task.id": "t1"}, trace="4" * 32))
    receiving.receive(asked("2 + 2?", "1"), asked("2 + 2?", "2"), asked("3 + 3?", "3"), named)

    first, second, third, fourth = receiving.read().rollouts
    assert (first.group_id, first.task_id) == (second.group_id, second.task_id)
    assert first.group_id != third.group_id
    assert fourth.task_id == "t1"
    assert {task.input for task in receiving.read().tasks.values()} == {"2 + 2?", "3 + 3?", None}


def test_spans_that_call_each_other_in_a_circle_do_no_harm(receiving, otlp):
    receiving.receive(otlp.request(otlp.span(1, "chat", CALL, parent=2), otlp.span(2, "chat", CALL, parent=1)))

    _, spans = receiving.one()
    assert sorted(span.id for span in spans) == ["0000000000000001", "0000000000000002"]


def test_a_child_whose_clock_is_ahead_comes_after_its_parent(receiving, otlp):
    late = otlp.span(1, "invoke_agent solver", AGENT, at=(200.0, 210.0))
    receiving.receive(otlp.request(otlp.span(2, "chat", CALL, parent=1, at=(100.0, 101.0)), late))

    _, spans = receiving.one()
    assert [span.name for span in spans] == ["solver", "chat"]


def test_many_traces_at_once_from_many_exporters(receiving, otlp, pieces):
    """64 traces of four pieces, each piece a request of its own, from eight threads."""
    traces = [f"{number:032x}" for number in range(1, 65)]
    requests = [otlp.request(of_trace(piece, trace)) for trace, piece in itertools.product(traces, pieces)]

    with receiving.server(settle=1000.0) as send:
        threads = [threading.Thread(target=send, args=requests[start::8]) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    recorded = receiving.read()
    assert sorted(rollout.id for rollout in recorded.rollouts) == traces
    assert {(rollout.outcome, rollout.total_reward) for rollout in recorded.rollouts} == {(1.0, 1.25)}
    for trace, spans in recorded.spans.items():
        assert [span.index for span in spans] == list(range(6))
        assert {span.rollout_id for span in spans} == {trace}


def test_a_run_that_another_receiver_holds_is_answered_with_try_again(receiving, otlp, pieces):
    with receiving.server() as send, receiving.server() as other:
        assert send(otlp.request(pieces[0])).status == 200
        answer = other(otlp.request(otlp.span(1, "chat", CALL, trace="5" * 32)))
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert "is open in process" in Status.FromString(answer.body).message


def test_evaluations_come_as_spans_and_as_attributes_too(receiving, otlp):
    score = {"gen_ai.evaluation.name": "style", "gen_ai.evaluation.score.value": 0.5}
    receiving.receive(
        otlp.request(
            otlp.span(1, "invoke_agent solver", {**AGENT, **score}),
            otlp.span(2, "gen_ai.evaluation.result", {**score, "gen_ai.evaluation.name": "tone"}, parent=1),
            otlp.span(
                3,
                "LLM",
                {
                    "openinference.span.kind": "LLM",
                    "evaluations.0.evaluation.name": "relevance",
                    "evaluations.0.evaluation.score": 0.75,
                    "evaluations.0.evaluation.label": "relevant",
                },
                parent=1,
            ),
        )
    )

    rollout, spans = receiving.one()
    assert {(reward.name, reward.value, reward.span_id) for reward in rollout.rewards} == {
        ("style", 0.5, None),
        ("tone", 0.5, None),
        ("relevance", 0.75, "0000000000000003"),
    }
    assert sorted(span.kind for span in spans) == ["agent", "llm", "reward", "reward", "reward"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "no number"])
def test_a_score_that_is_no_finite_number_is_none_not_zero(receiving, otlp, score):
    receiving.receive(otlp.request(otlp.span(1, "chat", CALL, events=[otlp.evaluation("correct", score)])))

    rollout, _ = receiving.one()
    assert [reward.value for reward in rollout.rewards] == [None]
    assert rollout.total_reward is None


def test_an_evaluator_that_failed_gave_no_score(receiving, otlp):
    failed = ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "correct", "error.type": "timeout"})
    receiving.receive(otlp.request(otlp.span(1, "chat", CALL, events=[failed])))

    (reward,) = receiving.one()[0].rewards
    assert (reward.value, reward.reason) == (None, "timeout")


def test_a_label_without_a_score_is_no_reward(receiving, otlp):
    label = ("gen_ai.evaluation.result", {"gen_ai.evaluation.name": "language", "gen_ai.evaluation.score.label": "de"})
    receiving.receive(otlp.request(otlp.span(1, "chat", CALL, events=[label, otlp.evaluation("correct", 1)])))

    rollout, _ = receiving.one()
    assert [reward.name for reward in rollout.rewards] == ["correct"]
