"""A selection from end to end: a real run, a real store, an agent whose answers and usage were recorded before."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlightning import Task, Trainer
from agentlightning.errors import AlgorithmError
from agentlightning.recording import current
from agentlightning.records import Failure, Generation, ModelChoice, Rollout, Usage
from agentlightning.store import open_store
from agentlightning_selection.race import Race

CANDIDATES = [
    {"model": "large", "input_price": 10.0, "output_price": 30.0},
    {"model": "medium", "input_price": 1.0, "output_price": 3.0},
    {"model": "small", "input_price": 0.1, "output_price": 0.3},
]
HELD_OUT = 30


def recorded_scores(tasks: int = 150, seed: int = 0) -> list[Task]:
    """Questions with the score of every model, as a router's data set has them."""
    rates = {"large": 0.80, "medium": 0.74, "small": 0.35}
    hardness = np.random.default_rng(seed).random(tasks)
    return [
        Task(
            id=str(index), input=index, metadata={"scores": {name: float(hard < rate) for name, rate in rates.items()}}
        )
        for index, hard in enumerate(hardness)
    ]


asked: Counter[tuple[str, int]] = Counter()
"""How often each model was asked each question."""


async def agent(question: int) -> str:
    """Answers with the name of the model that was chosen for it; its other agent's calls are not for sale."""
    recorder = current()
    assert recorder is not None
    choice = recorder.resource(ModelChoice, "solver")
    assert choice is not None
    asked[choice.model, question] += 1
    for name in ("solver", "judge"):
        call = recorder.start("llm", "chat", agent=name)
        call.generation = Generation(model=choice.model, usage=Usage(input_tokens=1000, output_tokens=100))
        if choice.model == "unreachable":
            call.failure = Failure(type="engine_unavailable", message="no route", fault="infrastructure")
        recorder.end(call)
    return choice.model


def score(rollout: Rollout, task: Task) -> float:
    value: float = task.metadata["scores"][rollout.output]
    return value


def train(folder: Path, **options: Any) -> Any:
    return trainer(folder, **options).fit()


def trainer(folder: Path, **options: Any) -> Trainer:
    tasks = recorded_scores()
    return Trainer(
        agent,
        tasks[HELD_OUT:],
        score,
        {"name": "selection", "candidates": CANDIDATES, **options},
        held_out=tasks[:HELD_OUT],
        train=["solver"],
        store=f"sqlite:///{folder}/runs.db",
        directory=folder,
    )


async def train_in_thread(folder: Path, **options: Any) -> Any:
    return await asyncio.to_thread(train, folder, **options)


async def metrics_of(folder: Path, run_id: str) -> dict[tuple[int, str], float]:
    store = open_store(f"sqlite:///{folder}/runs.db")
    try:
        return {(metric.step, metric.name): metric.value for metric in await store.metrics(run_id)}
    finally:
        await store.close()


def of_the_models(result: Any) -> dict[str, str]:
    """What came of a run, but for where its files are."""
    return {
        name: text for name, text in result.results.items() if name not in ("front table", "front picture", "curve")
    }


def test_the_best_model_is_published_and_the_worst_dropped(tmp_path: Path) -> None:
    result = train(tmp_path)
    assert result.results["model"] == "large"
    assert any(name.startswith("small out after round") for name in result.results)
    before, after = result.evaluations
    assert {rollout.output for rollout in before.rollouts} == {"large"}
    assert {rollout.output for rollout in after.rollouts} == {"large"}


def test_the_cheapest_model_that_is_good_enough_is_published(tmp_path: Path) -> None:
    result = train(tmp_path, objective="cheapest", margin=0.1)
    assert result.results["model"] == "medium"
    before, after = result.evaluations
    assert {rollout.output for rollout in before.rollouts} == {"large"}
    assert {rollout.output for rollout in after.rollouts} == {"medium"}
    asked_large, asked_medium = (evaluation.rollouts[0].resources["model"] for evaluation in (before, after))
    assert asked_large != asked_medium


def test_price_weighs_against_reward(tmp_path: Path) -> None:
    assert train(tmp_path, cost_weight=10.0).results["model"] == "medium"


async def test_costs_are_those_of_the_calls_the_choice_is_for(tmp_path: Path) -> None:
    run_id = (await train_in_thread(tmp_path)).run_id
    metrics = await metrics_of(tmp_path, run_id)
    assert metrics[1, "cost/large"] == pytest.approx((1000 * 10 + 100 * 30) / 1e6)
    assert metrics[1, "cost/small"] == pytest.approx((1000 * 0.1 + 100 * 0.3) / 1e6)
    assert metrics[1, "spent"] == pytest.approx(32 * sum(metrics[1, f"cost/{one['model']}"] for one in CANDIDATES))


async def test_every_candidate_left_runs_on_the_same_tasks_each_once(tmp_path: Path) -> None:
    run_id = (await train_in_thread(tmp_path)).run_id
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    rollouts = await store.rollouts(run_id, purpose="train")
    await store.close()
    ran: dict[str, list[str]] = {}
    for rollout in rollouts:
        ran.setdefault(rollout.output, []).append(rollout.task_id)
    assert sorted(ran["large"]) == sorted(ran["medium"]) == sorted(str(index) for index in range(HELD_OUT, 150))
    assert set(ran["small"]) < set(ran["large"])
    assert len(ran["small"]) == len(set(ran["small"]))


async def test_rollouts_metrics_and_evaluations_of_a_round_are_of_one_step(tmp_path: Path) -> None:
    result = await train_in_thread(tmp_path)
    steps = {step for step, _ in await metrics_of(tmp_path, result.run_id)}
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    assert {rollout.step for rollout in await store.rollouts(result.run_id, purpose="train")} == steps
    await store.close()
    assert [evaluation.step for evaluation in result.evaluations] == [0, max(steps)]


async def test_a_limit_of_dollars_ends_the_race(tmp_path: Path) -> None:
    run_id = (await train_in_thread(tmp_path, max_dollars=0.3)).run_id
    metrics = await metrics_of(tmp_path, run_id)
    assert max(step for step, _ in metrics) == 1


def test_a_race_that_was_cut_off_goes_on_with_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole")
    eliminate, looks = Race.eliminate, itertools.count(1)

    def cut_off_at_the_second_look(race: Race) -> dict[int, str]:
        if next(looks) == 2:
            raise KeyboardInterrupt
        return eliminate(race)

    asked.clear()
    monkeypatch.setattr(Race, "eliminate", cut_off_at_the_second_look)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    assert of_the_models(trainer(tmp_path).fit(resume=True)) == of_the_models(whole)
    times = [times for (_, question), times in asked.items() if question >= HELD_OUT]
    assert sum(times) == len(times) + 1, "each once, but for the question of the check, which is asked once more"


def test_an_endpoint_that_cannot_be_reached_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    result = train(tmp_path, candidates=[{"model": "unreachable"}, *CANDIDATES])
    assert result.results["model"] == "large"
    assert result.results["unreachable out"].startswith(
        "5 rollouts in a row broke down: 5 × engine_unavailable: no route"
    )


def test_a_selection_whose_candidates_are_all_gone_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    same = [{"model": "unreachable"}, {"model": "unreachable", "base_url": "http://127.0.0.1:9"}]
    with pytest.raises(
        AlgorithmError, match="every candidate is gone after 64 rollouts: unreachable at its own endpoint"
    ):
        train(tmp_path, candidates=same)
