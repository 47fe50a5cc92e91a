"""An async agent or reward that blocks: the run goes on, or ends with the place; it never stands still in silence."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from agentlightning import Algorithm, Trainer, loop_watch
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import NoConfig, RunnerConfig
from agentlightning.records import Rollout

pytestmark = pytest.mark.timeout(120)

TASKS = [{"id": str(number), "input": number} for number in range(4)]


class Once(Algorithm):
    async def run(self, run: Any) -> None:
        self.rollouts: dict[str, Rollout] = {}
        async for group in run.collect(run.tasks, group_size=1, step=1):
            for rollout in group.all_rollouts:
                self.rollouts[rollout.task_id] = rollout


def spins() -> None:
    while True:
        pass


def waits_bit_by_bit() -> None:
    while True:
        threading.Event().wait(0.01)


@pytest.fixture
def run_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(loop_watch, "LOOK_EVERY", 0.1)

    def run(agent: Any, reward: Any) -> dict[str, Rollout]:
        algorithm = Once(NoConfig())
        Trainer(
            agent,
            TASKS,
            reward,
            algorithm,
            held_out=TASKS[:1],
            store=f"sqlite:///{tmp_path / 'store.db'}",
            directory=tmp_path / "runs",
            progress=make_progress(quiet=True),
            runner=RunnerConfig(timeout=1.0, reward_timeout=1.0, concurrency=1),
        ).fit()
        return algorithm.rollouts

    return run


@pytest.mark.parametrize("block", [spins, waits_bit_by_bit], ids=lambda block: block.__name__)
def test_an_async_agent_that_blocks_times_out_and_the_others_run(run_all: Any, block: Any, caplog: Any) -> None:
    async def agent(number: int) -> int:
        if number == 2:
            block()
        return number

    rollouts = run_all(agent, lambda rollout, task: 1.0)
    assert rollouts["2"].failure is not None
    assert rollouts["2"].failure.type == "timeout"
    assert all(rollouts[task].output == int(task) for task in "013")
    assert "an async function has held the event loop for more than 1 s, at " in caplog.text
    assert "test_loop_watch.py" in caplog.text


@pytest.mark.parametrize("block", [spins, waits_bit_by_bit], ids=lambda block: block.__name__)
def test_an_async_reward_that_blocks_is_a_reward_error_and_the_others_are_scored(run_all: Any, block: Any) -> None:
    async def reward(rollout: Rollout, task: Any) -> float:
        if rollout.task_id == "2":
            block()
        return 1.0

    async def agent(number: int) -> int:
        await asyncio.sleep(0)
        return number

    rollouts = run_all(agent, reward)
    assert {task: rollout.outcome for task, rollout in rollouts.items()} == {"0": 1.0, "1": 1.0, "2": None, "3": 1.0}
    assert rollouts["2"].failure is not None
    assert rollouts["2"].failure.message == "reward 'reward' took longer than runner.reward_timeout = 1 s"


def test_one_that_waits_in_the_system_ends_the_run_with_the_place(tmp_path: Path) -> None:
    program = """
        import time
        from agentlightning import Algorithm, Trainer
        from agentlightning.config import NoConfig
        from agentlightning.config import RunnerConfig
        from agentlightning.errors import AdapterError

        class Once(Algorithm):
            async def run(self, run):
                async for _ in run.collect(run.tasks, group_size=1, step=1):
                    pass

        async def agent(number):
            time.sleep(3600)

        def fit():
            tasks = [{"input": 1}, {"input": 2}]
            Trainer(agent, tasks, lambda rollout, task: 1.0, Once(NoConfig()), runner=RunnerConfig(timeout=1.0)).fit()

        try:
            fit()
        except AdapterError as error:
            print(error)
    """
    (tmp_path / "blocking.py").write_text(textwrap.dedent(program))
    done = subprocess.run([sys.executable, "blocking.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "has held the event loop for more than 1 s, at blocking.py:14: nothing else runs" in done.stdout
    assert done.returncode == 0
