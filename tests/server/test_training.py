"""A training run whose store is a Lightning Server's: what is run, gone on with, and survived."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import agentlightning as agl
from agentlightning import Algorithm, Trainer
from agentlightning.cli import main
from agentlightning.progress import Progress
from agentlightning.records import Prompt
from agentlightning_server.remote import RemoteStore

TASKS = [{"id": f"t{number}", "input": number, "expected": number * 2} for number in range(4)]


class Steps(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 3


class Collecting(Algorithm):
    """Publishes a prompt, collects every task, logs and checkpoints at every step; raises after ``stops_after``."""

    Config = Steps
    stops_after: int | None = None

    async def run(self, run: Any) -> None:
        await run.evaluate(step=0)
        for step in range(run.restored.step + 1 if run.restored else 1, self.config.steps + 1):
            await run.publish(Prompt(name="prompt", version=step, template=f"Step {step}."))
            async for group in run.collect(run.tasks, group_size=2, step=step):
                assert len(group.rollouts) == 2
            run.log({"loss": 1.0 / step}, step=step)
            if step == self.stops_after:
                raise RuntimeError("stopped")
            await run.checkpoint(step, {"step": step}, lambda folder: (folder / "weights").write_text("w"))
        await run.evaluate(step=self.config.steps)


class Agent:
    """Doubles a number, and tells how; at its n-th call something happens to the world."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self.happenings: dict[int, Callable[[], None]] = {}

    def __call__(self, number: int) -> int:
        with self._lock:
            self._calls += 1
            happening = self.happenings.pop(self._calls, None)
        with agl.span("double"):
            if happening is not None:
                happening()
        return number * 2


def right(rollout: Any, task: Any) -> float:
    return float(rollout.output == task.expected)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def make(tmp_path: Path, agent: Agent) -> Callable[[str], Trainer]:
    def trainer(url: str) -> Trainer:
        options = {"store": url, "directory": tmp_path / "runs", "name": "remote", "progress": Progress()}
        return Trainer(agent.__call__, TASKS, right, Collecting(Steps()), held_out=TASKS[:2], **options)

    return trainer


async def all_of(url: str, run_id: str) -> tuple[Any, list[Any], list[Any]]:
    store = RemoteStore(url)
    run = await store.run(run_id)
    rollouts = await store.rollouts(run_id)
    spans = [await store.spans(rollout.id) for rollout in rollouts]
    assert [metric.step for metric in await store.metrics(run_id) if metric.name == "loss"] == [1, 2, 3]
    await store.close()
    return run, rollouts, spans


async def check(url: str, result: Any) -> None:
    """Everything that a run of three steps leaves is there, once."""
    run, rollouts, spans = await all_of(url, result.run_id)
    assert (result.status, run.status) == ("succeeded", "succeeded")
    assert [evaluation.mean for evaluation in result.evaluations] == [1.0, 1.0]
    assert len(rollouts) == 3 * len(TASKS) * 2 + 2 * 2, "three steps and two evaluations"
    assert {(rollout.status, rollout.attempt, rollout.outcome) for rollout in rollouts} == {("succeeded", 1, 1.0)}
    assert {tuple(span.name for span in of_one) for of_one in spans} == {("__call__", "double")}


async def test_a_whole_run_is_kept_by_a_server(server: Any, make: Callable[[str], Trainer]) -> None:
    result = await make(server.url).fit_async()
    await check(server.url, result)
    shown = await asyncio.to_thread(CliRunner().invoke, main, ["show", result.run_id, "--store", server.url])
    assert (shown.exit_code, "succeeded" in shown.output) == (0, True), shown.output


async def test_a_run_that_stopped_goes_on_from_its_checkpoint(
    server: Any, make: Callable[[str], Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Collecting, "stops_after", 2)
        with pytest.raises(RuntimeError, match="stopped"):
            await make(server.url).fit_async()
    await check(server.url, await make(server.url).fit_async(resume=True))


async def test_a_run_goes_on_when_its_server_is_killed_in_the_middle_and_started_again(
    process: Any, make: Callable[[str], Trainer], agent: Agent
) -> None:
    agent.happenings = {5: process.kill_and_start_again, 17: process.kill_and_start_again}
    result = await make(process.url).fit_async()
    assert not agent.happenings
    await check(process.url, result)
