"""Server, trainer and workers, each a process of its own, over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentlightning import Algorithm, Trainer
from agentlightning.config import RunnerConfig
from agentlightning.progress import Progress
from agentlightning_server.remote import RemoteStore

pytest.importorskip("agentlightning_client")

TASKS = [{"id": f"t{number}", "input": number, "expected": number} for number in range(6)]
HERE = Path(__file__).parent


class Options(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 2


class Collecting(Algorithm):
    """Collects every task in two steps; at the second ``between`` happens first."""

    Config = Options
    between: Any = None

    async def run(self, run: Any) -> None:
        for step in range(1, self.config.steps + 1):
            if step == 2:
                self.between()
            async for _ in run.collect(run.tasks, group_size=2, step=step):
                pass


def right(rollout: Any, task: Any) -> float:
    return float(rollout.output == task.expected)


@pytest.fixture
def workers(process: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    code = "from agentlightning.cli import main; main()"
    command = [sys.executable, "-c", code, "work", process.url, "--agent", "echo_agent:echo", "--concurrency", "2"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(2)]
    yield started
    for one in started:
        one.kill()
        one.wait()


async def test_workers_run_what_a_trainer_learns_from_and_a_killed_server_stops_neither(
    process: Any, workers: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    algorithm = Collecting(Options())
    algorithm.between = process.kill_and_start_again
    trainer = Trainer(
        "echo_agent:echo",
        TASKS,
        right,
        algorithm,
        held_out=TASKS[:2],
        runner=RunnerConfig(name="clients", config={"wait_seconds": 60}),
        store=process.url,
        directory=tmp_path / "runs",
        progress=Progress(),
    )
    result = await trainer.fit_async()
    store = RemoteStore(process.url)
    rollouts = await store.rollouts(result.run_id)
    assert [len(await store.spans(rollout.id)) for rollout in rollouts] == [2] * 24
    assert {(rollout.status, rollout.attempt, rollout.outcome) for rollout in rollouts} == {("succeeded", 1, 1.0)}
    await store.close()
    assert [worker.wait(60) for worker in workers] == [0, 0], "they end with the run"
