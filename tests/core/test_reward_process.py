"""Rewards in a process of their own: those that need a main thread, that may freeze theirs, or end it."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import runs

from agentlightning.config import RewardConfig
from agentlightning.plugins import Plugins
from agentlightning.records import Failure, Reward, Rollout, Span, Task
from agentlightning.scoring import Scoring

pytestmark = pytest.mark.timeout(120)

REWARDS = """
import os
import re
import signal
import subprocess
import sys
import time

import msgspec


def alarmed(rollout, task):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(5)
    try:
        return float(rollout.output == task.expected)
    finally:
        signal.alarm(0)


def too_slow_for_its_alarm(rollout, task):
    def stop(*_):
        raise TimeoutError("took longer than its alarm")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(60)


def wrapped(rollout, task):
    try:
        return alarmed(rollout, task)
    except ValueError as error:
        raise ValueError("this does not work in threads") from error


async def alarmed_later(rollout, task):
    return alarmed(rollout, task)


def leaves_its_alarm(rollout, task):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    return 1.0


class StrictConfig(msgspec.Struct):
    worth: float = 1.0


class Alarmed:
    Config = StrictConfig

    def __init__(self, config):
        self.worth = config.worth

    def __call__(self, rollout, task):
        return self.worth * alarmed(rollout, task)


def backtracks(rollout, task):
    return float(re.match(r"(a+)+$", "a" * 64 + "b") is not None)


def sleeps(rollout, task):
    time.sleep(3600)


def waits_for_another(rollout, task):
    process = subprocess.Popen(["sleep", "3600"])
    with open(os.environ["PID_FILE"], "w") as file:
        file.write(str(process.pid))
    process.wait()


def ends_its_process(rollout, task):
    os._exit(3)


def crashes(rollout, task):
    os.kill(os.getpid(), signal.SIGSEGV)


def exits(rollout, task):
    sys.exit(4)


def stops(rollout, task):
    next(iter(()))


def prints(rollout, task):
    print("a line" * 10000)
    os.write(1, b"more" * 10000)
    return 0.25


def counts(rollout, task, spans):
    return {"spans": len(spans), "output": len(rollout.output), "none": None}


def of_main_thread(rollout, task):
    import threading

    return float(threading.current_thread() is threading.main_thread())


def reads_a_line(rollout, task):
    return float(sys.stdin.readline() == "")
"""

TASK = Task(id="t", input="1 + 1", expected="2")


def rollout(number: int = 0, output: Any = "2") -> Rollout:
    return Rollout(id=f"r{number}", run_id="run", group_id="g", task_id="t", purpose="train", step=1, output=output)


async def score(reward: Any, *, seconds: float = 30.0, spans: Any = ()) -> tuple[Reward, Failure | None]:
    scoring = Scoring([reward], Plugins([]))
    try:
        rewards, failures = await scoring.score(rollout(), TASK, spans, seconds=seconds)
    finally:
        scoring.close()
    return rewards[0], failures[0] if failures else None


@pytest.fixture(autouse=True)
def rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "rewards_of_users.py").write_text(textwrap.dedent(REWARDS))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("rewards_of_users", None)


def named(name: str, **options: Any) -> RewardConfig:
    return RewardConfig(name=f"rewards_of_users:{name}", **options)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
@pytest.mark.parametrize("name", ["alarmed", "wrapped", "alarmed_later", "Alarmed"])
async def test_a_reward_that_needs_a_main_thread_is_scored_in_a_process_of_its_own(name: str) -> None:
    reward, failure = await score(named(name))
    assert failure is None
    assert reward.value == 1.0


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
async def test_its_own_alarm_is_heard_there() -> None:
    _, failure = await score(named("too_slow_for_its_alarm"))
    assert failure is not None
    assert failure.exception == "builtins.TimeoutError"
    assert "took longer than its alarm" in failure.message
    assert "rewards_of_users.py" in failure.message


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
async def test_a_function_of_a_module_needs_no_config_for_it() -> None:
    from agentlightning.loading import load

    reward, failure = await score(load("rewards_of_users:alarmed"))
    assert failure is None
    assert reward.value == 1.0


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
async def test_a_function_without_a_name_to_import_is_told_what_to_do() -> None:
    def alarmed(rollout: Rollout, task: Task) -> float:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        return 1.0

    reward, failure = await score(alarmed)
    assert reward.value is None
    assert failure is not None
    assert "put it at the top level of a module and name it in the config, as module:function" in failure.message


async def test_a_class_has_its_config_there() -> None:
    reward, _ = await score(named("Alarmed", config={"worth": 3.0}, weight=2.0, process=True))
    assert (reward.name, reward.value, reward.weight) == ("Alarmed", 3.0, 2.0)


async def test_many_rollouts_are_scored_so_at_once() -> None:
    scoring = Scoring([named("of_main_thread", process=True), named("alarmed")], Plugins([]))
    try:
        scored = await asyncio.gather(*(scoring.score(rollout(number), TASK, []) for number in range(24)))
    finally:
        scoring.close()
    assert [[reward.value for reward in rewards] for rewards, _ in scored] == [[1.0, 1.0]] * 24


@pytest.mark.parametrize("name", ["backtracks", "sleeps"])
async def test_one_that_never_ends_is_killed_at_its_limit_and_the_next_is_scored(name: str) -> None:
    scoring = Scoring([named(name, process=True), named("of_main_thread", process=True)], Plugins([]))
    try:
        for number in range(2):
            (lost, kept), (failure,) = await scoring.score(rollout(number), TASK, [], seconds=2.0)
            assert (lost.value, kept.value) == (None, 1.0)
            assert failure.message == f"reward '{name}' took longer than runner.reward_timeout = 2 s"
    finally:
        scoring.close()


async def test_what_one_has_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("PID_FILE", str(pid_file))
    _, failure = await score(named("waits_for_another", process=True), seconds=5.0)
    assert failure is not None
    assert not runs(int(pid_file.read_text()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ends_its_process", "ended its process, with exit code 3"),
        ("crashes", "ended its process, with signal SIGSEGV"),
        ("exits", "raised SystemExit: 4"),
        ("stops", "raised StopIteration"),
    ],
)
async def test_one_that_ends_its_process_is_a_reward_error(name: str, message: str) -> None:
    reward, failure = await score(named(name, process=True))
    assert reward.value is None
    assert failure is not None
    assert failure.type == "reward_error"
    assert failure.message.startswith(f"reward '{name}' {message}")


async def test_what_it_prints_and_reads_is_not_taken_for_an_answer() -> None:
    scoring = Scoring([named("prints", process=True), named("reads_a_line", process=True)], Plugins([]))
    try:
        rewards, failures = await scoring.score(rollout(), TASK, [])
    finally:
        scoring.close()
    assert ([reward.value for reward in rewards], failures) == ([0.25, 1.0], [])


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs POSIX signals")
async def test_an_alarm_that_one_call_leaves_does_not_end_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.scoring.processes.PROCESSES", 1)
    scoring = Scoring([named("leaves_its_alarm", process=True)], Plugins([]))
    try:
        for number in range(3):
            rewards, _ = await scoring.score(rollout(number), TASK, [])
            assert rewards[0].value == 1.0
            await asyncio.sleep(0.3)
    finally:
        scoring.close()


async def test_it_is_given_spans_and_gives_components() -> None:
    spans = [Span(rollout_id="r0", kind="tool", name="calculator")] * 3
    scoring = Scoring([named("counts", process=True)], Plugins([]))
    try:
        rewards, failures = await scoring.score(rollout(output="four"), TASK, spans)
    finally:
        scoring.close()
    assert {reward.name: reward.value for reward in rewards} == {
        "counts.spans": 3.0,
        "counts.output": 4.0,
        "counts.none": None,
    }
    assert failures == []


async def test_a_module_that_does_not_import_there_is_a_reward_error(tmp_path: Path) -> None:
    from agentlightning.loading import load

    found = load("rewards_of_users:alarmed")
    (tmp_path / "rewards_of_users.py").write_text("import no_such_module")
    assert found is not None
    reward, failure = await score(named("alarmed", process=True))
    assert reward.value is None
    assert failure is not None
    assert "cannot be made in a process of its own: " in failure.message
    assert "no_such_module" in failure.message


async def test_it_ends_with_the_run() -> None:
    import psutil

    scoring = Scoring([named("of_main_thread", process=True)], Plugins([]))
    await scoring.score(rollout(), TASK, [])
    workers = [child for child in psutil.Process().children() if "scoring.worker" in " ".join(child.cmdline())]
    assert workers
    scoring.close()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
