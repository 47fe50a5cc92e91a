"""Traces that OpenTelemetry's own SDK and exporter send from another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentlightning.cli import main


def agl(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from agentlightning.cli import main; main()", *arguments]


@pytest.mark.parametrize("how", ["simple", "batch"])
def test_a_trace_arrives_as_a_rollout_with_its_rewards(receiving, otlp, how):
    with receiving.server() as send:
        otlp.run_agent(send.endpoint, how, "3")

    recorded = receiving.read("otel-calculator")
    assert (recorded.run.name, recorded.run.algorithm, recorded.run.status) == ("calculator", "otel", "succeeded")
    assert recorded.run.config["resource"]["deployment.environment.name"] == "test"
    assert [rollout.status for rollout in recorded.rollouts] == ["succeeded"] * 3
    for number, rollout in enumerate(recorded.rollouts):
        assert rollout.output == str(number + 4)
        assert rollout.total_reward == 1.5
        assert recorded.tasks[rollout.task_id].input == f"What is {number} + 4?"
        spans = recorded.spans[rollout.id]
        by_id = {span.id: span for span in spans}
        assert [(span.kind, span.name, span.agent) for span in spans] == [
            ("agent", "solver", "solver"),
            ("llm", "chat gpt-4o-mini", "solver"),
            ("tool", "add", "solver"),
            ("reward", "tool_used", "solver"),
            ("tool", "lookup", "solver"),
            ("llm", "chat gpt-4o-mini", "solver"),
            ("reward", "correct", "solver"),
        ]
        parents = [by_id[span.parent_id].name if span.parent_id else None for span in spans]
        assert parents == [None, "solver", "solver", "add", "solver", "solver", "solver"]
        whole, step = (next(it for it in rollout.rewards if it.name == name) for name in ("correct", "tool_used"))
        assert (whole.value, whole.span_id, whole.reason) == (1.0, None, "correct: the sum is right")
        assert (step.value, step.span_id) == (0.5, spans[2].id)


def test_a_model_call_is_told_in_the_shape_of_the_chat_api(receiving, otlp):
    with receiving.server() as send:
        otlp.run_agent(send.endpoint)

    _, spans = receiving.one("otel-calculator")
    first, second = (span.generation for span in spans if span.kind == "llm")
    question = [{"role": "system", "content": "Use the calculator."}, {"role": "user", "content": "What is 0 + 4?"}]
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 0, "b": 4}'}}
    assert first.messages == question
    assert first.response == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert second.messages == [*question, first.response, {"role": "tool", "tool_call_id": "call_1", "content": "4"}]
    assert second.response == {"role": "assistant", "content": "4"}
    assert [call.finish_reason for call in (first, second)] == ["tool_calls", "stop"]
    assert (first.model, first.temperature, first.provenance) == ("gpt-4o-mini-2024-07-18", 0.5, "text")
    assert (first.usage.input_tokens, first.usage.output_tokens) == (20, 5)
    assert first.prompt_ids is None


def test_a_tool_has_its_arguments_result_and_failure(receiving, otlp):
    with receiving.server() as send:
        otlp.run_agent(send.endpoint)

    rollout, spans = receiving.one("otel-calculator")
    add, lookup = (span for span in spans if span.kind == "tool")
    assert add.attributes["gen_ai.tool.call.arguments"] == {"a": 0, "b": 4}
    assert add.attributes["gen_ai.tool.call.result"] == "4"
    assert add.attributes["gen_ai.tool.call.id"] == "call_1"
    assert (lookup.failure.type, lookup.failure.fault, lookup.failure.exception) == ("tool_error", "agent", "KeyError")
    assert "KeyError: 'no such page'" in lookup.failure.traceback
    assert rollout.failure is None


@pytest.fixture
def command(tmp_path: Path):
    """``agl otel receive`` in a process of its own, and where it listens."""
    processes = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        store = f"sqlite:///{tmp_path}/store.db"
        process = subprocess.Popen(
            agl("otel", "receive", "--port", "0", "--store", store, *arguments),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        processes.append(process)
        process.stdout.readline()
        return process, process.stdout.readline().strip().partition("=")[2]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_receives_until_it_is_stopped(command, receiving, otlp, number):
    process, endpoint = command()
    otlp.run_agent(endpoint, "batch", "2")
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert rest == "2 rollouts received\n"
    assert [rollout.total_reward for rollout in receiving.read("otel-calculator").rollouts] == [1.5, 1.5]


def test_what_was_acknowledged_survives_kill_9(command, receiving, otlp):
    process, endpoint = command("--settle", "1000")
    otlp.run_agent(endpoint, "simple", "2")
    process.kill()
    process.wait()
    assert [rollout.finished for rollout in receiving.read("otel-calculator").rollouts] == [False, False]

    receiving.receive()

    recorded = receiving.read("otel-calculator")
    assert [(rollout.status, rollout.total_reward) for rollout in recorded.rollouts] == [("succeeded", 1.5)] * 2
    assert [len(spans) for spans in recorded.spans.values()] == [7, 7]
    assert recorded.run.status == "succeeded"


def test_show_and_export_know_received_rollouts(receiving, otlp, tmp_path):
    with receiving.server() as send:
        otlp.run_agent(send.endpoint)
    rollout, _ = receiving.one("otel-calculator")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, [*arguments, "--store", receiving.url], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert "otel-calculator" in run("runs")
    assert "1 succeeded" in run("show", "otel-calculator")
    shown = run("show", rollout.id[:8])
    for text in ("agent solver", 'calls add({"a": 0, "b": 4})', "reward correct 1", "tool_error (agent): no such page"):
        assert text in shown
    rows = tmp_path / "rows.jsonl"
    run("export", "otel-calculator", "--output", str(rows))
    (row,) = map(json.loads, rows.read_text().splitlines())
    assert (row["total_reward"], len(row["spans"]), row["task"]["input"]) == (1.5, 7, "What is 0 + 4?")
    run("export", "otel-calculator", "--what", "transitions", "--output", str(rows))
    assert rows.read_text() == ""


def test_a_port_that_is_taken_is_one_clear_error(receiving):
    with receiving.server() as send:
        port = send.endpoint.rpartition(":")[2]
        result = CliRunner().invoke(main, ["otel", "receive", "--port", port, "--store", receiving.url])

    assert result.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.output


def test_a_store_that_cannot_be_opened_is_one_clear_error():
    result = CliRunner().invoke(main, ["otel", "receive", "--port", "0", "--store", "nowhere://there"])

    assert result.exit_code == 2
    assert "store 'nowhere://there'" in result.output
