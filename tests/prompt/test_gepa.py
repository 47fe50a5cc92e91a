"""GEPA through a run of ours finds what the package finds alone, and keeps to the budget of the run."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rule_tasks
from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch
from gepa.utils import MaxCandidateProposalsStopper
from prompt_runs import candidates_of, metrics_of, published_prompts, rollouts_of
from stub_answers import text
from stub_server import StubServer

from agentlightning import Task
from agentlightning.data import set_apart


class Alone:
    """The same task for the package by itself: no run, no store, no rollouts."""

    propose_new_texts = None

    def evaluate(self, batch: list[Task], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        scores = [float(rule_tasks.is_right(candidate["rules"], task.input)) for task in batch]
        return EvaluationBatch(outputs=scores, scores=scores, trajectories=list(zip(batch, scores, strict=True)))

    def make_reflective_dataset(self, candidate: dict[str, str], batch: Any, names: list[str]) -> Any:
        examples = [
            {"Inputs": {"task": task.input}, "Feedback": f"Score: {score:g}"} for task, score in batch.trajectories
        ]
        return dict.fromkeys(names, examples)


def gepa_alone(folder: Path, train: list[Task], validation: list[Task], *, seed: int, steps: int) -> Any:
    return optimize(
        seed_candidate={"rules": rule_tasks.OWN},
        trainset=train,
        valset=validation,
        adapter=Alone(),
        reflection_lm=lambda prompt: f"```\n{rule_tasks.improved(str(prompt))}\n```",
        reflection_minibatch_size=3,
        stop_callbacks=MaxCandidateProposalsStopper(steps),
        seed=seed,
        logger=type("Silent", (), {"log": lambda self, message: None})(),
    )


@pytest.mark.parametrize("seed", range(2))
async def test_the_same_candidates_are_accepted_as_by_the_package_alone(
    tmp_path: Path, stub: StubServer, seed: int
) -> None:
    stub.reply(rule_tasks.reflect)
    trainer = rule_tasks.trainer(tmp_path, stub, seed=seed, steps=12)
    result = await asyncio.to_thread(trainer.fit)
    train, validation = set_apart(rule_tasks.tasks(20)[2:], 6, seed)
    alone = gepa_alone(tmp_path, train, validation, seed=seed, steps=12)
    assert candidates_of(tmp_path, result.run_id) == alone.candidates
    assert len(alone.candidates) > 2
    published = await published_prompts(tmp_path, result.run_id)
    assert published["rules"].template == alone.best_candidate["rules"]
    assert f"→ {alone.val_aggregate_scores[alone.best_idx]:.3f}" in result.results["prompts"]


@pytest.mark.parametrize("budget", [6, 14, 17, 22, 29])
async def test_the_budget_is_never_exceeded_and_all_that_was_paid_for_is_used(
    tmp_path: Path, stub: StubServer, budget: int
) -> None:
    stub.reply(rule_tasks.reflect)
    trainer = rule_tasks.trainer(tmp_path, stub, budget=budget)
    result = await asyncio.to_thread(trainer.fit)
    purposes = Counter(rollout.purpose for rollout in await rollouts_of(tmp_path, result.run_id))
    spent = purposes["train"] + purposes["validate"]
    metrics = await metrics_of(tmp_path, result.run_id)
    assert budget - 9 < spent <= budget
    assert metrics.get("candidate_rollouts_unused", 0) == 0
    assert "rollouts are left of the budget" in result.results["stopped"]


async def test_a_candidate_that_the_budget_cannot_validate_on_all_tasks_is_compared_on_those_that_it_can(
    tmp_path: Path, stub: StubServer
) -> None:
    best = f"Rules: {' '.join(rule_tasks.KINDS)}"
    stub.reply(text(f"```\n{best}\n```"))
    result = await asyncio.to_thread(rule_tasks.trainer(tmp_path, stub, budget=6 + 3 + 3 + 4).fit)
    ran = await rollouts_of(tmp_path, result.run_id)
    validated = [rollout for rollout in ran if rollout.purpose == "validate" and rollout.step == 1]
    assert len(validated) == 4
    assert (await published_prompts(tmp_path, result.run_id))["rules"].template == best
    assert result.results["prompts"].endswith("→ 1.000 on the validation tasks")
