"""Fine-tuning: on the best rollouts of each task, or on demonstrations, with the real engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_run import DrawnRun, group
from transformers import AutoModelForCausalLM

from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Failure, Task
from agentlightning.training_rows import Group, TrainingRow
from agentlightning_policy.batches import make_batches
from agentlightning_policy.logprobs import unpacked_logprobs
from agentlightning_sft.algorithm import SFT
from agentlightning_sft.selection import best_rollouts


def algorithm(path: Path, **fields: Any) -> SFT:
    values = {
        "model": {"path": str(path), "device": "cpu"},
        "steps": 3,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-3,
        "checkpoint_every": 2,
        **fields,
    }
    return SFT.from_section(values)


@pytest.fixture
def drawn_run(tmp_path: Path) -> DrawnRun:
    return DrawnRun(tmp_path / "run")


def best_rows(groups: list[Group], *, keep: int, threshold: float) -> list[TrainingRow]:
    members = [member for one in groups for member in best_rollouts(one, keep=keep, threshold=threshold)]
    return [row for member in members for row in member.rows]


def names(rows: list[TrainingRow]) -> list[str]:
    return [row.rollout_id for row in rows]


def cross_entropy(model: Any, rows: list[TrainingRow]) -> float:
    (batch,) = make_batches(rows, 10_000)
    with torch.no_grad():
        return -float(unpacked_logprobs(model, batch).logprobs.sum()) / int(batch.lengths.sum())


def test_the_best_of_each_task_above_the_threshold_are_kept() -> None:
    groups = [group("b", [0.2, 0.9, 1.0, 0.5]), group("a", [0.1, 0.0]), group("c", [0.8, 0.8])]
    assert names(best_rows(groups, keep=1, threshold=0.5)) == ["b.2", "c.0"]
    assert names(best_rows(groups, keep=2, threshold=0.6)) == ["b.2", "b.1", "c.0", "c.1"]


def test_every_row_of_a_kept_rollout_is_learned_and_one_without_rows_gives_way() -> None:
    groups = [group("a", [1.0, 0.9, 0.8], rows=[0, 2, 1])]
    assert names(best_rows(groups, keep=1, threshold=0.5)) == ["a.1", "a.1"]


async def test_the_best_rollouts_become_likelier(tiny_model: Path, drawn_run: DrawnRun) -> None:
    fixed = group("only", [1.0, 0.0, 0.0, 0.3])
    drawn_run.drawn = lambda task, step: fixed
    drawn_run.tasks = drawn_run.tasks[:1]
    best = best_rows([fixed], keep=1, threshold=1.0)
    before = cross_entropy(AutoModelForCausalLM.from_pretrained(tiny_model), best)
    await algorithm(tiny_model, batch_tasks=1).run(drawn_run)
    assert cross_entropy(AutoModelForCausalLM.from_pretrained(drawn_run.results["model"]), best) < before
    assert drawn_run.logged[1]["loss"] == pytest.approx(before, abs=1e-4)
    assert drawn_run.logged[1]["reward"] == pytest.approx(1.3 / 4)
    assert drawn_run.events[:5] == [
        "check",
        "evaluate 0 sampled at 1.0 x1",
        "evaluate 0 greedy at 0.0 x1",
        "collect 1",
        "step 1 of 3",
    ]


async def test_the_loss_does_not_depend_on_the_micro_batches(tiny_model: Path, tmp_path: Path) -> None:
    runs = []
    for budget in (10, 10_000):
        run = DrawnRun(tmp_path / str(budget))
        await algorithm(tiny_model, steps=1, max_tokens_per_micro_batch=budget).run(run)
        runs.append(run.logged[1])
    assert runs[0]["loss"] == pytest.approx(runs[1]["loss"], abs=1e-5)
    assert runs[0]["grad_norm"] == pytest.approx(runs[1]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("fields", [{}, {"epochs": 2, "mini_batches": 2}], ids=["plain", "inner epochs"])
async def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(
    tiny_model: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    whole = DrawnRun(tmp_path / "whole")
    await algorithm(tiny_model, **fields).run(whole)
    resumed = DrawnRun(tmp_path / "resumed", restored=whole.checkpoints[0])
    await algorithm(tiny_model, **fields).run(resumed)
    assert [event for event in resumed.events if event.startswith("collect")] == ["collect 3"]
    first, second = (
        AutoModelForCausalLM.from_pretrained(run.results["model"]).state_dict() for run in (whole, resumed)
    )
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


async def test_demonstrations_are_learned_without_running_a_task(
    tiny_model: Path, tmp_path: Path, drawn_run: DrawnRun
) -> None:
    chat = [{"role": "user", "content": "23 + 48?"}, {"role": "assistant", "content": "The answer is 71."}]
    path = tmp_path / "shown.jsonl"
    path.write_text(json.dumps({"messages": chat}))
    await algorithm(tiny_model, demonstrations=str(path), batch_tasks=1, group_size=8).run(drawn_run)
    assert not any(event.startswith("collect") for event in drawn_run.events)
    assert drawn_run.logged[3]["loss"] < drawn_run.logged[1]["loss"]
    assert drawn_run.logged[1]["tokens"] > 1


async def test_the_best_weights_of_demonstrations_are_found_on_tasks(tiny_model: Path, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "23 + 48?"}, {"role": "assistant", "content": "The answer is 71."}]
    path = tmp_path / "shown.jsonl"
    path.write_text(json.dumps({"messages": chat}))
    fields = {"demonstrations": str(path), "batch_tasks": 1, "group_size": 8}
    run = DrawnRun(tmp_path / "run")
    run.validations = {0: 0.1, 1: 0.5, 2: 0.4, 3: 0.3}
    await algorithm(tiny_model, **fields, steps=9, validate={"every": 1, "tasks": 1, "patience": 2}).run(run)
    assert not any(event.startswith("collect") for event in run.events)
    assert (run.results["best step"], run.results["stopped"][:12]) == ("1", "after step 3")
    shorter = DrawnRun(tmp_path / "shorter")
    await algorithm(tiny_model, **fields, steps=1).run(shorter)
    first, second = (AutoModelForCausalLM.from_pretrained(it.results["model"]).state_dict() for it in (run, shorter))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


async def test_a_run_in_which_nothing_was_good_enough_says_so(tiny_model: Path, drawn_run: DrawnRun) -> None:
    with pytest.raises(AlgorithmError, match=r"no rollout reached a reward of 2\.0, the best has 1: lower"):
        await algorithm(tiny_model, threshold=2.0).run(drawn_run)


async def test_a_step_in_which_the_policy_wrote_nothing_says_why(tiny_model: Path, drawn_run: DrawnRun) -> None:
    def failed(task: Task, step: int) -> Group:
        drawn = group(task.id, [1.0, 0.0], rows=[0, 0])
        for rollout in drawn.all_rollouts:
            rollout.failure = Failure(type="agent_error", message="x", exception="builtins.KeyError", where="a.py:3")
        return drawn

    drawn_run.drawn = failed
    message = r"step 1: there is nothing to train on: 4 of 4 rollouts failed: 4 × KeyError: x \(a.py:3\)"
    with pytest.raises(AlgorithmError, match=message):
        await algorithm(tiny_model).run(drawn_run)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 5}, "algorithm.keep: expected 1 to group_size"),
        ({"steps": 0}, "algorithm.steps: expected int >= 1, got 0"),
        ({"demonstrations": "a.jsonl", "group_size": 8, "threshold": 0.5}, "algorithm.threshold: has an effect only"),
        ({"demonstrations": "a.jsonl"}, "algorithm.group_size: has an effect only where there are no demonstrations"),
        ({"credit": "broadcast"}, "algorithm.credit: SFT gives credit in its own way"),
        ({"treshold": 0.5}, "algorithm.treshold: unknown key; did you mean threshold"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        algorithm(Path("model"), **fields)
