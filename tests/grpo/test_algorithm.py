"""GRPO as a whole: on a tiny model and drawn rollouts, with the real engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_run import DrawnRun, group
from transformers import AutoModelForCausalLM

from agentlightning.credit import Credit
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.records import Failure, Task
from agentlightning.training_rows import Group
from agentlightning_grpo.algorithm import GRPO

Weights = dict[str, torch.Tensor]


class Nothing(Credit):
    def assign(self, groups: Sequence[Group]) -> None:
        for one in groups:
            for member in one.rollouts:
                member.set_advantage(0.0)


def algorithm(path: Path, **fields: Any) -> GRPO:
    values = {
        "model": {"path": str(path), "device": "cpu"},
        "steps": 3,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-3,
        "checkpoint_every": 2,
        **fields,
    }
    return GRPO.from_section(values)


async def trained(run: DrawnRun, path: Path, **fields: Any) -> Weights:
    await algorithm(path, **fields).run(run)
    return AutoModelForCausalLM.from_pretrained(run.results["model"]).state_dict()


def assert_same(first: Weights, second: Weights) -> None:
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


async def test_a_run_goes_through_its_phases_in_order(tiny_model: Path, drawn_run: DrawnRun) -> None:
    await trained(drawn_run, tiny_model, evaluate={"samples": 2, "every": 2})
    assert drawn_run.events == [
        "check",
        "evaluate 0 sampled at 1.0 x2",
        "evaluate 0 greedy at 0.0 x1",
        "collect 1",
        "step 1 of 3",
        "collect 2",
        "step 2 of 3",
        "evaluate 2 sampled at 1.0 x2",
        "evaluate 2 greedy at 0.0 x1",
        "collect 3",
        "step 3 of 3",
        "evaluate 3 sampled at 1.0 x2",
        "evaluate 3 greedy at 0.0 x1",
    ]
    assert [resource.version for resource in drawn_run.published] == [0, 1, 2, 3]
    assert [checkpoint.step for checkpoint in drawn_run.checkpoints] == [2, 3]


async def test_the_rewarded_answers_become_likelier(tiny_model: Path, drawn_run: DrawnRun) -> None:
    fixed = group("only", [1.0, 0.0, 0.0, 1.0])
    drawn_run.drawn = lambda task, step: fixed
    drawn_run.tasks = drawn_run.tasks[:1]

    def likelihood(model: Any, rollout: int) -> float:
        row = fixed.rollouts[rollout].rows[0]
        ids = torch.from_numpy(row.token_ids).long()
        logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        return float(logprobs.detach()[torch.from_numpy(row.mask[1:])].sum())

    before = AutoModelForCausalLM.from_pretrained(tiny_model)
    await trained(drawn_run, tiny_model, batch_tasks=1)
    after = AutoModelForCausalLM.from_pretrained(drawn_run.results["model"])
    changes = [likelihood(after, rollout) - likelihood(before, rollout) for rollout in range(4)]
    assert min(changes[0], changes[3]) > 0 > max(changes[1], changes[2])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"epochs": 2, "mini_batches": 2, "warmup": 3, "schedule": "linear"},
        {"replay": 0.5},
        {"loss": {"beta": 0.1}},
        {"model_lora": {"rank": 4, "dropout": 0.2}},
    ],
    ids=["plain", "inner epochs", "replayed tasks", "KL", "LoRA with dropout"],
)
async def test_a_resumed_run_ends_with_the_same_weights_to_the_bit(
    tiny_model: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    lora = fields.pop("model_lora", None)
    fields = {**fields, "model": {"path": str(tiny_model), "device": "cpu", "lora": lora}}
    whole = DrawnRun(tmp_path / "whole")
    expected = await trained(whole, tiny_model, **fields)
    (checkpoint, _) = whole.checkpoints
    resumed = DrawnRun(tmp_path / "resumed", restored=checkpoint)
    assert_same(await trained(resumed, tiny_model, **fields), expected)
    assert [event for event in resumed.events if event.startswith("collect")] == ["collect 3"]
    assert [resource.version for resource in resumed.published][-1] == whole.published[-1].version
    again = DrawnRun(tmp_path / "again")
    assert_same(await trained(again, tiny_model, **fields), expected)


async def test_a_run_ends_with_the_weights_of_its_best_validation(tiny_model: Path, tmp_path: Path) -> None:
    fields = {"validate": {"every": 1, "tasks": 1}, "replay": 0.5, "checkpoint_every": 1}
    whole, shorter = DrawnRun(tmp_path / "whole"), DrawnRun(tmp_path / "shorter")
    whole.validations = shorter.validations = {0: 0.1, 1: 0.5, 2: 0.2, 3: 0.3}
    best = await trained(whole, tiny_model, **fields)
    assert_same(best, await trained(shorter, tiny_model, **fields, steps=1))
    assert [resource.version for resource in whole.published] == [0, 1, 2, 3, 1]
    assert set(whole.checkpoints[-1].state["spread"]) <= {"task1", "task2"}
    resumed = DrawnRun(tmp_path / "resumed", restored=whole.checkpoints[1])
    resumed.validations = whole.validations
    assert_same(await trained(resumed, tiny_model, **fields), best)


async def test_every_number_of_a_step_is_logged_and_finite(tiny_model: Path, drawn_run: DrawnRun) -> None:
    await trained(drawn_run, tiny_model, loss={"beta": 0.05, "sampler_correction": "token_truncate"}, steps=2)
    first, second = drawn_run.logged[1], drawn_run.logged[2]
    assert first.keys() == second.keys()
    assert {"reward", "reward_spread", "loss", "kl", "entropy", "grad_norm", "clip_fraction", "lr"} <= first.keys()
    assert all(torch.isfinite(torch.tensor(value)) for value in first.values())
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert second["kl"] > 1e-5
    assert first["sampler_mismatch_mean"] > 0.1


async def test_a_step_that_teaches_nothing_leaves_the_weights_alone(tiny_model: Path, drawn_run: DrawnRun) -> None:
    drawn_run.drawn = lambda task, step: group(task.id, [1.0, 1.0])
    weights = await trained(drawn_run, tiny_model)
    assert_same(weights, AutoModelForCausalLM.from_pretrained(tiny_model).state_dict())
    assert drawn_run.logged[1]["groups_skipped"] == 2


async def test_skipping_groups_without_spread_changes_nothing_but_the_time(tiny_model: Path, tmp_path: Path) -> None:
    """The loss is that of TRL, which computes them: their tokens count in the mean."""
    metrics = []
    drawn = {"task0": [1.0, 0.0], "task1": [1.0, 1.0], "task2": [1.0, 1.0]}
    for beta in (0.0, 1e-12):  # with a KL term all are computed, here for next to nothing
        run = DrawnRun(tmp_path / str(beta))
        run.drawn = lambda task, step: group(task.id, drawn[task.id])
        await algorithm(tiny_model, batch_tasks=3, steps=1, loss={"beta": beta}).run(run)
        metrics.append(run.logged[1])
    assert metrics[0]["loss"] == pytest.approx(metrics[1]["loss"], abs=1e-6)
    assert metrics[0]["grad_norm"] == pytest.approx(metrics[1]["grad_norm"], rel=1e-4)


async def test_the_credit_is_the_one_that_the_config_names(tiny_model: Path, drawn_run: DrawnRun) -> None:
    weights = await trained(drawn_run, tiny_model, credit=f"{__name__}:Nothing", steps=1)
    assert_same(weights, AutoModelForCausalLM.from_pretrained(tiny_model).state_dict())
    assert drawn_run.logged[1]["groups_skipped"] == 2


async def test_bfloat16_with_lora_trains(tiny_model: Path, drawn_run: DrawnRun) -> None:
    model = {"path": str(tiny_model), "device": "cpu", "dtype": "bfloat16", "lora": {"rank": 4}}
    weights = await trained(drawn_run, tiny_model, model=model)
    before = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert any(not torch.equal(weights[name].float(), before[name].bfloat16().float()) for name in weights)
    assert drawn_run.logged[3]["loss"] != 0


async def test_a_loss_that_is_not_finite_stops_the_run(tiny_model: Path, drawn_run: DrawnRun) -> None:
    def odd(task: Task, step: int) -> Group:
        drawn = group(task.id, [1.0, 0.0])
        drawn.rows[0].logprobs[:] = float("nan")
        return drawn

    drawn_run.drawn = odd
    with pytest.raises(AlgorithmError, match=r"step 1: the loss is nan"):
        await trained(drawn_run, tiny_model, loss={"sampler_correction": "token_truncate"})


async def test_a_step_without_rollouts_says_what_broke_them(tiny_model: Path, drawn_run: DrawnRun) -> None:
    def broken(task: Task, step: int) -> Group:
        whole = group(task.id, [1.0, 0.0])
        for rollout in whole.all_rollouts:
            rollout.failure = Failure(type="timeout", message="", fault="infrastructure")
        return Group(id=whole.id, task=task, rollouts=[], excluded=whole.all_rollouts)

    drawn_run.drawn = broken
    with pytest.raises(
        AlgorithmError, match=r"step 1: there is nothing to train on: 4 of 4 rollouts failed: 4 × timeout$"
    ):
        await trained(drawn_run, tiny_model)


async def test_an_agent_that_never_asked_the_policy_is_said_to(tiny_model: Path, drawn_run: DrawnRun) -> None:
    drawn_run.drawn = lambda task, step: group(task.id, [1.0, 0.0], rows=[0, 0])
    with pytest.raises(AlgorithmError, match=r"step 1: .* in 4 of 4 rollouts no call of the agents was answered"):
        await trained(drawn_run, tiny_model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_size": 1}, "algorithm.group_size: expected at least 2"),
        ({"temperature": 0.0}, "algorithm.temperature"),
        ({"preset": "trl/dapo"}, "algorithm.preset: there is no trl/dapo"),
        ({"loss": {"cispo_max": 2.0}}, "algorithm.loss.cispo_max: has an effect only where kind is cispo"),
        ({"preset": "trl-1.16/dr_grpo", "advantage": {"eps": 0.1}}, "algorithm.advantage.eps: has an effect only"),
        ({"credit": {"name": "broadcast", "scale": "none", "ddof": 0}}, "algorithm.credit.ddof: has an effect only"),
        ({"credit": f"{__name__}:Nothing", "advantage": {"eps": 0.1}}, "algorithm.advantage: only the credit"),
        ({"lr": "fast"}, "algorithm.lr: expected float, got str"),
        ({"learning_rate": 1e-6}, "algorithm.learning_rate: unknown key"),
    ],
)
def test_a_wrong_config_is_refused_before_anything_runs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        algorithm(Path("model"), **fields)
