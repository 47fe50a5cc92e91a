"""Rollouts sent as they finish, where the environment asks for it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

import agentlightning as agl
from agentlightning.algorithm import Algorithm
from agentlightning.trainer import Trainer
from agentlightning_otel import sender
from agentlightning_otel.sender import LiveSender, live_sender
from agentlightning_otel.values import attributes_of

TASKS = [{"id": f"t{number}", "input": number, "expected": number * 2} for number in range(4)]


class Waiting(Algorithm):
    """Collects each task once; ``after`` is called when the first group is there."""

    def __init__(self, after=lambda: None):
        super().__init__(self.Config())
        self.after = after

    async def run(self, run):
        async for _ in run.collect(run.tasks, step=1):
            self.after()


def double(number):
    with agl.span("think", agent="doubler"):
        agl.reward(0.5, "thought", step=True)
        if number == 3:
            raise ValueError("three")
    return number * 2


def right(rollout, task):
    return float(rollout.output == task.expected)


@pytest.fixture
def train(tmp_path):
    def run(*, reward=right, **options):
        options = {"algorithm": Waiting(), "store": f"sqlite:///{tmp_path}/store.db", "directory": tmp_path, **options}
        return Trainer(double, TASKS, reward, held_out=TASKS, **options).fit()

    yield run
    live_sender.cache_clear()


def roots(collector):
    return [attributes_of(span.attributes) for span in collector.spans if not span.parent_span_id]


@pytest.mark.parametrize(
    "variable", ["AGENTLIGHTNING_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
)
def test_rollouts_are_sent_as_they_finish(train, collector, monkeypatch, variable):
    monkeypatch.setenv(variable, collector.endpoint)
    arrived_during_the_run = []
    waiting = Waiting(lambda: arrived_during_the_run.append(collector.received.acquire(timeout=30)))

    result = train(algorithm=waiting)

    assert arrived_during_the_run == [True] * len(TASKS)
    sent = roots(collector)
    assert sorted(it["agentlightning.task.id"] for it in sent) == ["t0", "t1", "t2", "t3"]
    assert {it["agentlightning.run.id"] for it in sent} == {result.run_id}
    assert {it["agentlightning.rollout.status"] for it in sent} == {"succeeded", "failed"}
    spans = [span for span in collector.spans if span.parent_span_id]
    assert sorted(span.name for span in spans) == ["invoke_agent double"] * 4 + ["invoke_agent think"] * 4
    assert [event.name for span in spans for event in span.events].count("gen_ai.evaluation.result") == 4


def test_what_is_sent_has_the_rewards_of_its_group(train, collector, monkeypatch):
    monkeypatch.setenv("AGENTLIGHTNING_OTLP_ENDPOINT", collector.endpoint)

    def rank(rollouts, task):
        return [0.25 for _ in rollouts]

    train(reward=[right, rank])

    assert len(roots(collector)) == len(TASKS)
    given = [
        attributes_of(event.attributes)["gen_ai.evaluation.name"]
        for span in collector.spans
        for event in span.events
        if event.name == "gen_ai.evaluation.result"
    ]
    assert given.count("rank") == len(TASKS)


def test_our_variable_comes_first_and_may_switch_it_off(train, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("AGENTLIGHTNING_OTLP_ENDPOINT", "")
    train()
    assert collector.requests == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "no address"])
def test_an_endpoint_that_fails_harms_no_run_and_warns_once(train, monkeypatch, caplog, endpoint):
    monkeypatch.setattr(sender, "BACKOFF_SECONDS", 0)
    monkeypatch.setenv("AGENTLIGHTNING_OTLP_ENDPOINT", endpoint)

    assert train().status == "succeeded"

    messages = [record.message for record in caplog.records if record.name == "agentlightning_otel.sender"]
    assert len(messages) == 1
    assert "not sent" in messages[0]


def test_more_than_can_be_sent_is_left_out_and_never_waited_for(collector, monkeypatch, caplog):
    from agentlightning.records import Rollout

    monkeypatch.setattr(sender, "MAX_QUEUED", 1)
    held = threading.Event()
    monkeypatch.setattr(sender.Sender, "send", lambda *_: held.wait(30))
    sending = LiveSender(collector.endpoint)
    for number in range(4):
        sending.send(Rollout(id=str(number), run_id="run", group_id="g", task_id="t", purpose="train"), [], None)
    held.set()
    sending.flush()
    assert "more than can be sent are waiting" in caplog.text


def test_without_an_endpoint_nothing_is_imported():
    code = """
import sys
import agentlightning_otel.plugin as plugin
plugin.rollout_finished(rollout=None, task=None, spans=[])
plugin.run_finished(run=None)
heavy = {"google.protobuf", "opentelemetry", "urllib3", "starlette", "uvicorn", "agentlightning_otel.sender"}
print(sorted(heavy & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_run_ends_when_its_rollouts_are_sent(train, collector, monkeypatch):
    monkeypatch.setenv("AGENTLIGHTNING_OTLP_ENDPOINT", collector.endpoint)
    flushed = []
    monkeypatch.setattr(LiveSender, "flush", lambda self: flushed.append(self))
    train()
    assert flushed == [live_sender(collector.endpoint)]
