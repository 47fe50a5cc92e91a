"""The first rollout of a run: when it is made, when it is made again, and that it counts for nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentlightning import Algorithm, Trainer
from agentlightning.check.watch import notice_when_slow
from agentlightning.cli.export import rows
from agentlightning.config import NoConfig, RunnerConfig
from agentlightning.errors import AlgorithmError, CheckError
from agentlightning.progress import Progress
from agentlightning.recording import current
from agentlightning.records import Generation, ModelChoice, Rollout, Task
from agentlightning.report import evaluations_of
from agentlightning.store import open_store

TASKS = [{"id": f"t{number}", "input": number} for number in range(6)]


class Choosing(Algorithm):
    """Publishes a model, checks, evaluates; crashes where it is told to."""

    crash = False

    async def run(self, run: Any) -> None:
        await run.publish(ModelChoice(name="model", model="large"))
        await run.check()
        await run.evaluate(step=0)
        if self.crash:
            raise RuntimeError("crashed")


class Forgetful(Algorithm):
    """Never asks for a check."""

    async def run(self, run: Any) -> None:
        async for _ in run.collect(run.tasks, step=1):
            pass


class Notes(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


class Solver:
    """An agent that asks its model once; ``asked`` are the inputs it was given."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.error: Exception | None = None

    def __call__(self, number: int) -> int:
        self.asked.append(number)
        if self.error is not None:
            raise self.error
        recorder = current()
        assert recorder is not None
        span = recorder.start("llm", "chat", agent="solver")
        span.generation = Generation(response={"role": "assistant", "content": "4"})
        recorder.end(span)
        return number


def score(rollout: Rollout, task: Task) -> float:
    return 1.0


Make = Callable[..., Trainer]


@pytest.fixture
def trainer(tmp_path: Path) -> Make:
    def make(agent: Any, reward: Any = score, algorithm: Algorithm | None = None, **options: Any) -> Trainer:
        options = {"tasks": TASKS[:4], "held_out": TASKS[4:], "progress": Notes()} | options
        places = {"store": f"sqlite:///{tmp_path}/store.db", "directory": tmp_path / "runs", "name": "test"}
        return Trainer(agent, options.pop("tasks"), reward, algorithm or Choosing(NoConfig()), **places, **options)

    return make


async def rollouts_in(folder: Path) -> list[Rollout]:
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        (run,) = await store.runs()
        return await store.rollouts(run.id)
    finally:
        await store.close()


def test_before_anything_is_spent_one_training_task_is_run(trainer: Make) -> None:
    agent, notes = Solver(), Notes()
    trainer(agent, progress=notes).fit()
    assert agent.asked[0] in range(4)
    assert sorted(agent.asked[1:]) == [4, 5]
    assert notes.messages[0].startswith("first rollout, which counts for nothing: task t")


def test_which_task_it_is_follows_from_the_seed(trainer: Make) -> None:
    asked = []
    for seed in (0, 0, 1, 2, 3, 4, 5):
        agent = Solver()
        trainer(agent, seed=seed).check()
        asked += agent.asked
    assert asked[0] == asked[1]
    assert len(set(asked)) > 1


def test_a_pointless_run_ends_there_with_the_cause(trainer: Make, tmp_path: Path) -> None:
    agent = Solver()
    agent.error = ValueError("boom")
    with pytest.raises(CheckError, match=r"^the agent failed: ValueError: boom \(.*test_check_run.py:\d+\)$"):
        trainer(agent).fit()
    assert len(agent.asked) == 1
    assert [rollout.purpose for rollout in asyncio.run(rollouts_in(tmp_path))] == ["check"]


def test_resumed_after_the_fault_is_mended_it_is_checked_again(trainer: Make, tmp_path: Path) -> None:
    agent = Solver()
    agent.error = ValueError("boom")
    with pytest.raises(CheckError):
        trainer(agent).fit()
    agent.error = None
    assert trainer(agent).fit(resume=True).status == "succeeded"
    purposes = [rollout.purpose for rollout in asyncio.run(rollouts_in(tmp_path))]
    assert purposes == ["check", "check", "evaluate", "evaluate"]


def test_resumed_after_a_good_check_it_is_not_checked_again(
    trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Solver()
    with monkeypatch.context() as patch:
        patch.setattr(Choosing, "crash", True)
        with pytest.raises(RuntimeError, match="crashed"):
            trainer(agent).fit()
    asked = len(agent.asked)
    trainer(agent).fit(resume=True)
    assert len(agent.asked) == asked
    assert [rollout.purpose for rollout in asyncio.run(rollouts_in(tmp_path))].count("check") == 1


def test_it_counts_for_nothing(trainer: Make, tmp_path: Path) -> None:
    result = trainer(Solver()).fit()

    async def counted() -> tuple[int, int]:
        store = open_store(f"sqlite:///{tmp_path}/store.db")
        try:
            exported = [row async for row in rows(store, result.run_id, "rollouts")]
            evaluations = evaluations_of(await store.rollouts(result.run_id), {})
            return len(exported), sum(len(evaluation.rollouts) for evaluation in evaluations)
        finally:
            await store.close()

    assert asyncio.run(counted()) == (2, 2)
    assert [evaluation.step for evaluation in result.evaluations] == [0]


def test_a_check_by_itself_leaves_nothing_behind(trainer: Make, tmp_path: Path) -> None:
    agent = Solver()
    report = trainer(agent).check()
    assert report.ok
    assert len(agent.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_check_by_itself_reports_what_a_run_would_end_with(trainer: Make) -> None:
    agent = Solver()
    agent.error = ValueError("boom")
    report = trainer(agent).check()
    assert [error.split(" (")[0] for error in report.errors] == ["the agent failed: ValueError: boom"]


def test_a_check_by_itself_ends_an_algorithm_that_never_asks_for_one(trainer: Make) -> None:
    agent = Solver()
    assert trainer(agent, algorithm=Forgetful(NoConfig())).check().ok
    assert len(agent.asked) == 1
    trainer(agent, algorithm=Forgetful(NoConfig())).fit()
    assert len(agent.asked) == 1 + 4, "its run is not checked"


def test_an_algorithm_that_runs_nothing_has_nothing_to_check(trainer: Make) -> None:
    class Idle(Forgetful):
        async def run(self, run: Any) -> None:
            pass

    with pytest.raises(AlgorithmError, match="idle ran no rollout, so there is nothing to check"):
        trainer(Solver(), algorithm=Idle(NoConfig())).check()


def test_a_reward_that_cannot_tell_for_one_task_is_asked_about_another(trainer: Make) -> None:
    agent = Solver()

    def later(rollout: Rollout, task: Task) -> float | None:
        return None if len(agent.asked) == 1 else 1.0

    report = trainer(agent, later).check()
    assert report.errors == []
    assert report.warnings[0].startswith(f"task t{agent.asked[0]}: the reward 'later' cannot score it")
    assert len(set(agent.asked)) == 2


def test_a_reward_that_can_never_tell_ends_the_run_after_three_tasks(trainer: Make) -> None:
    agent = Solver()
    with pytest.raises(CheckError, match="cannot score it"):
        trainer(agent, lambda rollout, task: None).fit()
    assert len(set(agent.asked)) == len(agent.asked) == 3


def test_the_reward_that_raises_is_named_with_its_line(trainer: Make) -> None:
    def wrong(rollout: Rollout, task: Task) -> float:
        return task.metadata["points"]

    (error,) = trainer(Solver(), wrong).check().errors
    assert error.startswith("reward 'wrong' raised KeyError: 'points' (")
    assert "test_check_run.py" in error


def test_what_our_own_parts_warn_of_is_in_the_report(trainer: Make) -> None:
    def agent(number: int) -> int:
        logging.getLogger("agentlightning_gateway.chat").warning("the chat template shows %s", "no tools")
        logging.getLogger("somebody.else").warning("not ours")
        return Solver()(number)

    assert trainer(agent).check().warnings == ["the chat template shows no tools"]


async def test_while_the_first_rollout_takes_long_it_is_said_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.check.watch.SLOW_SECONDS", 0.0)
    said: asyncio.Queue[str] = asyncio.Queue()

    async def agent() -> str:
        return await said.get()

    with notice_when_slow(said.put_nowait):
        notice = await asyncio.create_task(agent())
    assert notice.startswith("the first rollout has run for")
    assert "test_check_run.py" in notice
    assert ": return await said.get()" in notice


def test_where_a_synchronous_agent_hangs_is_said(trainer: Make) -> None:
    forever = threading.Event()

    def agent(number: int) -> None:
        forever.wait(60)

    try:
        report = trainer(agent, runner=RunnerConfig(timeout=0.2)).check()
    finally:
        forever.set()
    assert "the agent took longer than runner.timeout = 0.2 s" in report.errors[0]
    assert report.errors[0].endswith(": forever.wait(60)")
