"""Every key of a config that is no algorithm's own changes what a run does: none is there without an effect."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from agentlightning.config import (
    CompareConfig,
    Config,
    PromoteConfig,
    RewardConfig,
    RunnerConfig,
    Section,
    TasksConfig,
    load_config,
)
from agentlightning.levers.sections import baseline_of
from agentlightning.promotion.gate import rules_of
from agentlightning.store import open_store
from agentlightning.trainer import Trainer

pytestmark = pytest.mark.timeout(120)

CODE = """
import asyncio
import os

import msgspec

from agentlightning import Algorithm
from agentlightning.errors import BudgetError, RedirectError
from agentlightning.local_runner import LocalRunner
from agentlightning.records import Policy

PARENT = int(os.environ["PROCESS_OF_THE_RUN"])
running, most, labels = 0, 0, []


async def agent(text):
    global running, most
    running += 1
    most = max(most, running)
    try:
        async with asyncio.timeout(0.3):
            while running < 2:
                await asyncio.sleep(0.001)
    except TimeoutError:
        pass
    finally:
        running -= 1
    if text == "broken":
        raise RedirectError("no route")
    if text == "slow":
        await asyncio.sleep(0.3)
    return f"{text} done"


async def other_agent(text):
    return f"{text} otherwise"


async def reward(rollout, task):
    if task.input == "slow":
        await asyncio.sleep(0.3)
    return {"in_process": os.getpid() == PARENT, "expected": task.expected or 0.0}


class Worth:
    class Config(msgspec.Struct):
        points: float = 1.0

    def __init__(self, config):
        self.points = config.points

    def __call__(self, rollout, task):
        return self.points


class Once(Algorithm):
    class Config(msgspec.Struct):
        steps: int = 1

    async def run(self, run):
        await run.publish(Policy(name="policy", model="m", base_url="http://127.0.0.1:9/v1"))
        for step in range(1, self.config.steps + 1):
            try:
                async for _ in run.collect(run.batches(3)(step), step=step):
                    pass
            except BudgetError:
                break
        await run.evaluate(step=1)


class LabelledRunner(LocalRunner):
    class Options(msgspec.Struct):
        label: str = "none"

    def run(self, rollouts, tasks, resources):
        labels.append(self.options.label)
        return super().run(rollouts, tasks, resources)
"""

ROWS = [
    {"id": "a", "input": "quick", "expected": 1.0, "answer": 5.0},
    {"id": "b", "input": "slow", "expected": 2.0, "answer": 6.0},
    {"id": "c", "input": "broken", "expected": 3.0, "answer": 7.0},
]
HELD_OUT = [{"id": id, "input": "held out", "answer": 8.0} for id in ("h", "i")]

BASE: dict[str, Any] = {
    "agent": "effects:agent",
    "tasks": {"train": "tasks.jsonl", "held_out": "held_out.jsonl"},
    "reward": {"name": "effects:reward"},
    "algorithm": {"name": "effects:Once"},
    "runner": {"retries": 0},
    "store": "sqlite:///store.db",
}
ANY_LABEL = {"runner": {"name": "effects:LabelledRunner"}}
WORTH = {"reward": {"name": "effects:Worth"}}

ELSEWHERE = {"prompts_from": "test_compare_levers.py: the prompts of that run are what the agents are given"}

EFFECTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "agent": ("effects:other_agent", {}),
    "tasks": ("other_tasks.jsonl", {}),
    "tasks.train": ("other_tasks.jsonl", {}),
    "tasks.held_out": ("tasks.jsonl", {}),
    "tasks.limit": (1, {}),
    "tasks.held_out_limit": (1, {}),
    "tasks.fields": ({"expected": "answer"}, {}),
    "reward": ("effects:Worth", {}),
    "reward.name": ("effects:Worth", {}),
    "reward.weight": (0.5, {}),
    "reward.process": (True, {}),
    "reward.config": ({"points": 7.0}, WORTH),
    "algorithm": ({"name": "effects:Once", "steps": 2}, {}),
    "train": (["solver"], {}),
    "prompts": ({"solver": "Be brief."}, {}),
    "budget": (2, {}),
    "runner": ({"retries": 1}, {}),
    "runner.name": ("effects:LabelledRunner", {}),
    "runner.concurrency": (1, {}),
    "runner.timeout": (0.05, {}),
    "runner.reward_timeout": (0.05, {}),
    "runner.retries": (1, {}),
    "runner.config": ({"label": "fast"}, ANY_LABEL),
    "compare": ({"samples": 2}, {}),
    "compare.algorithms": ({"other": {"name": "effects:Once", "steps": 3}}, {}),
    "compare.samples": (2, {}),
    "compare.alpha": (0.1, {}),
    "compare.prices": ({"m": [1.0, 2.0]}, {}),
    "promote": ({"minimum": 5}, {}),
    "promote.alpha": (0.1, {}),
    "promote.margin": (0.1, {}),
    "promote.minimum": (5, {}),
    "promote.bounds": ([0.0, 2.0], {}),
    "promote.enough": (50, {}),
    "store": ("sqlite:///elsewhere.db", {}),
    "directory": ("folder", {}),
    "name": ("experiment", {}),
    "seed": (1, {}),
}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "effects.py").write_text(textwrap.dedent(CODE))
    for name, rows in (("tasks", ROWS), ("other_tasks", ROWS[:2]), ("held_out", HELD_OUT)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{msgspec.json.encode(row).decode()}\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCESS_OF_THE_RUN", str(os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("effects", None)


async def observed(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run of these settings did, without its times and ids."""
    sys.modules.pop("effects", None)
    for store in folder.glob("*.db"):
        store.unlink()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(folder / "config.yaml")
    result = await Trainer.from_config(config).fit_async()
    store = open_store(config.store)
    run = await store.run(result.run_id)
    resources = await store.resources(result.run_id)
    rollouts = await store.rollouts(result.run_id)
    await store.close()
    assert run is not None
    effects = sys.modules["effects"]
    return {
        "name": run.name,
        "store": config.store,
        # What they do to a promotion: test_promotion_gate.py, test_canary.py.
        "promote": rules_of(run),
        # What it does to a comparison: test_compare_levers.py.
        "compare": [config.compare, baseline_of(config).algorithm],
        "folder": next(path.parent.name for path in folder.glob(f"*/{run.id}")),
        "resources": [(one.name, one.agents, getattr(one, "template", None)) for one in resources],
        "rollouts": [
            (
                *(one.purpose, one.step, one.task_id, one.output, one.attempt, one.failure and one.failure.type),
                [(part.name, part.value, part.weight) for part in one.rewards],
            )
            for one in rollouts
        ],
        "at once": effects.most,
        "labels": effects.labels,
    }


def changed(settings: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    key, _, rest = path.partition(".")
    return {**settings, key: changed(settings.get(key, {}), rest, value) if rest else value}


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """What the runs did that the others are compared with."""
    return {}


@pytest.mark.parametrize("path", EFFECTS)
async def test_the_key_changes_what_a_run_does(path: str, project: Path, known: dict[str, Any]) -> None:
    value, given = EFFECTS[path]
    before = {**BASE, **given}
    key = repr(given)
    if key not in known:
        known[key] = await observed(project, before)
    assert await observed(project, changed(before, path, value)) != known[key]


async def test_two_runs_of_one_config_do_the_same(project: Path) -> None:
    assert await observed(project, BASE) == await observed(project, BASE)


def test_every_key_is_among_them() -> None:
    sections: dict[str, type[Section]] = {
        "tasks": TasksConfig,
        "reward": RewardConfig,
        "runner": RunnerConfig,
        "promote": PromoteConfig,
        "compare": CompareConfig,
    }
    keys = {field.name for field in msgspec.structs.fields(Config)}
    for name, section in sections.items():
        keys |= {f"{name}.{field.name}" for field in msgspec.structs.fields(section)}
    assert keys == EFFECTS.keys() | ELSEWHERE.keys()
