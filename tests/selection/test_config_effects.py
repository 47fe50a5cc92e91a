"""Every key of a selection, and of a candidate, changes what is asked, counted or chosen, or is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentlightning import Task, Trainer
from agentlightning.errors import ConfigError
from agentlightning.recording import current
from agentlightning.records import Generation, ModelChoice, Rollout, Usage
from agentlightning.store import open_store
from agentlightning_selection.config import Candidate, SelectionConfig

GOOD = {"large": 0.9, "small": 0.8, "tiny": 0.1}
LARGE = {"model": "large", "input_price": 10.0, "output_price": 30.0}
SMALL = {"model": "small", "input_price": 0.1, "output_price": 0.3}
BASE: dict[str, Any] = {"candidates": [LARGE, SMALL], "batch": 12, "minimum": 12}
CHANGED: dict[str, tuple[dict[str, Any], Any]] = {
    "candidates": ({}, [LARGE, SMALL, {"model": "tiny"}]),
    "agents": ({}, ["judge"]),
    "objective": ({}, "cheapest"),
    "cost_weight": ({}, 50.0),
    "margin": ({"objective": "cheapest"}, 0.5),
    "batch": ({}, 6),
    "minimum": ({"candidates": [LARGE, {"model": "tiny"}]}, 48),
    "confidence": ({"candidates": [LARGE, {"model": "tiny"}]}, 0.999999999),
    "budget": ({}, 0.01),
    "candidates.model": ({}, "tiny"),
    "candidates.base_url": ({}, "http://127.0.0.1:1/v1"),
    "candidates.api_key_env": ({}, "A_KEY_OF_ITS_OWN"),
    "candidates.input_price": ({}, 1.0),
    "candidates.output_price": ({}, 1.0),
}
"""What else is set with a key, and its other value."""


async def agent(number: int) -> dict[str, Any]:
    """Tells what was chosen for each of its two agents."""
    recorder = current()
    assert recorder is not None
    chosen = {}
    for name in ("solver", "judge"):
        choice = recorder.resource(ModelChoice, name)
        chosen[name] = None if choice is None else [choice.model, choice.base_url, choice.api_key_env]
        call = recorder.start("llm", "chat", agent=name)
        call.generation = Generation(model="m", usage=Usage(input_tokens=1000, output_tokens=100))
        recorder.end(call)
    return chosen


def score(rollout: Rollout, task: Task) -> float:
    chosen = rollout.output["solver"] or rollout.output["judge"]
    return float(task.input / 100 < GOOD[chosen[0]])


async def measure(folder: Path, options: dict[str, Any]) -> str:
    tasks = [Task(id=str(number), input=number * 7 % 100) for number in range(60)]
    trainer = Trainer(
        agent,
        tasks[12:],
        score,
        {"name": "selection", **options},
        held_out=tasks[:12],
        train=["solver"],
        store=f"sqlite:///{folder}/runs.db",
        directory=folder,
    )
    result = await asyncio.to_thread(trainer.fit)
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        metrics = [
            (it.step, it.name, it.value) for it in await store.metrics(result.run_id) if "seconds" not in it.name
        ]
        rollouts = await store.rollouts(result.run_id)
    finally:
        await store.close()
    ran = sorted((it.purpose, it.step, it.variant, it.task_id, repr(it.output)) for it in rollouts)
    return repr((sorted(metrics), ran, result.results))


def with_key(options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, _, field = key.rpartition(".")
    if not section:
        return {**options, field: value}
    first, *others = options[section]
    return (
        {**options, section: [*others, {**first, field: value}]}
        if field == "model"
        else {
            **options,
            section: [{**first, field: value}, *others],
        }
    )


@pytest.mark.parametrize("key", CHANGED)
async def test_a_key_changes_something(tmp_path: Path, key: str) -> None:
    beside, value = CHANGED[key]
    base = {**BASE, **beside}
    before = await measure(tmp_path / "before", base)
    assert before == await measure(tmp_path / "again", base), "what is measured is no noise"
    assert before != await measure(tmp_path / "after", with_key(base, key, value))


@pytest.mark.parametrize(
    ("options", "where"), [({"margin": 0.1}, "cheapest"), ({"objective": "cheapest", "cost_weight": 1.0}, "reward")]
)
def test_a_key_without_effect_is_refused(options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError, match=f"has an effect only where objective is {where}"):
        Trainer(agent, [], score, {"name": "selection", **BASE, **options})


def test_every_key_is_held_to_it() -> None:
    keys = {field.name for field in msgspec.structs.fields(SelectionConfig)}
    assert set(CHANGED) == keys | {f"candidates.{field.name}" for field in msgspec.structs.fields(Candidate)}
