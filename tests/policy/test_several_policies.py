"""Several policies of one run: adapters on one frozen base, held in memory once, and else nothing in common."""

from __future__ import annotations

import asyncio
import gc
import shutil
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from conftest import make_tiny_model
from drawn_run import DrawnRun, group
from policy.rows import rollouts
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agentlightning import PolicyGradient
from agentlightning.algorithm import Evaluation
from agentlightning.loss import LossConfig
from agentlightning.records import AnyResource, Task
from agentlightning.training_rows import Group, RolloutRows
from agentlightning_policy.backend import TorchBackend
from agentlightning_policy.config import EngineConfig, LoraConfig, ModelConfig, TorchConfig
from agentlightning_policy.model import PolicyModel

LORA = LoraConfig(rank=4, alpha=8)
IDS = torch.tensor([[5, 9, 33, 70, 41]])
NAMES = ("planner", "solver")
LOSS = LossConfig(kind="cross_entropy", aggregation="token_mean")


def backend(path: Path, name: str, *, seed: int = 0, engine: EngineConfig | None = None, **model: Any) -> TorchBackend:
    config = TorchConfig(
        model=ModelConfig(**{"path": str(path), "device": "cpu", "lora": LORA, **model}),
        engine=engine or EngineConfig(max_tokens=4),
        lr=1e-2,
    )
    return TorchBackend(config, name=name, seed=seed, max_updates=4, phase=lambda name, **_: None)


@asynccontextmanager
async def started(*backends: TorchBackend) -> AsyncIterator[tuple[PolicyModel, ...]]:
    try:
        for one in backends:
            await one.start()
        yield tuple(one.policy for one in backends)
    finally:
        for one in backends:
            await one.aclose()


def addresses(policy: PolicyModel, *, trained: bool) -> dict[str, int]:
    named = policy.module.named_parameters()
    return {name: weight.data_ptr() for name, weight in named if weight.requires_grad == trained}


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(IDS).logits
    return found


async def test_adapters_of_one_model_lie_on_the_very_same_weights(tiny_model: Path) -> None:
    async with started(backend(tiny_model, "planner"), backend(tiny_model, "solver")) as (planner, solver):
        frozen = addresses(planner, trained=False)
        assert frozen
        assert frozen == addresses(solver, trained=False)
        adapters = [addresses(policy, trained=True) for policy in (planner, solver)]
        assert adapters[0].keys() == adapters[1].keys()
        assert not {*adapters[0].values()} & {*adapters[1].values()}
        assert planner.tokenizer is not solver.tokenizer


async def test_other_weights_types_and_policies_without_adapters_have_their_own(
    tiny_model: Path, tiny_model_of: Callable[[str], Path]
) -> None:
    models = [
        backend(tiny_model, "with adapters"),
        backend(tiny_model, "all of it", lora=None),
        backend(tiny_model, "all of it again", lora=None),
        backend(tiny_model, "in bfloat16", dtype="bfloat16"),
        backend(tiny_model_of("qwen2"), "another model"),
    ]
    async with started(*models) as policies:
        seen: set[int] = set()
        for policy in policies:
            here = {weight.data_ptr() for weight in policy.module.parameters()}
            assert not seen & here
            seen |= here


async def test_an_update_of_one_changes_nothing_of_the_other(tiny_model: Path) -> None:
    planner, solver = backend(tiny_model, "planner"), backend(tiny_model, "solver", seed=1)
    async with started(planner, solver):
        frozen = {name: weight.clone() for name, weight in planner.policy.base.named_parameters()}
        before = [logits(one.policy.module) for one in (planner, solver)]
        rows = rollouts()
        for row in rows:
            row.advantages[row.mask] = 1.0
        await planner.update([rows], LOSS, step=1)
        assert not torch.equal(logits(planner.policy.module), before[0])
        assert torch.equal(logits(solver.policy.module), before[1])
        assert (planner.policy.version, solver.policy.version) == (1, 0)
        after = dict(solver.policy.base.named_parameters())
        assert all(torch.equal(weight, after[name]) for name, weight in frozen.items() if "lora_" not in name)
        with planner.policy.frozen_reference() as reference:
            torch.testing.assert_close(logits(reference), before[0], atol=1e-6, rtol=0)


def test_adapters_begin_as_their_seed_has_them(tiny_model: Path) -> None:
    config = ModelConfig(path=str(tiny_model), device="cpu", lora=LORA)
    torch.manual_seed(3)
    first, again, other = (PolicyModel.load(config, seed=seed).state() for seed in (1, 1, 2))
    drawn = [name for name in first if "lora_A" in name]
    assert drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(3))), "nobody else's draws"


async def gone(ref: weakref.ref[torch.nn.Parameter]) -> None:
    """Returns when a weight is gone: a thread that has just ended what it did may hold it for a moment."""
    async with asyncio.timeout(30):
        while ref() is not None:
            await asyncio.sleep(0.01)
            gc.collect()


async def test_the_weights_go_with_the_last_policy_on_them(tiny_model: Path) -> None:
    planner, solver = backend(tiny_model, "planner"), backend(tiny_model, "solver")
    await planner.start()
    await solver.start()
    frozen = [weakref.ref(weight) for weight in planner.policy.base.parameters() if not weight.requires_grad]
    adapter = weakref.ref(planner.policy.parameters()[0])
    await planner.aclose()
    await gone(adapter)
    assert all(ref() is not None for ref in frozen)
    await solver.aclose()
    for ref in frozen:
        await gone(ref)


async def test_a_model_that_was_written_anew_is_read_anew(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = ModelConfig(path=str(folder), device="cpu", lora=LORA)
    before = PolicyModel.load(config)
    expected = logits(before.module)
    (make_tiny_model(tmp_path / "other", seed=1) / "model.safetensors").replace(folder / "model.safetensors")
    after = PolicyModel.load(config)
    torch.testing.assert_close(logits(after.module), logits(AutoModelForCausalLM.from_pretrained(folder)))
    assert not torch.allclose(logits(after.module), expected, atol=1e-2)
    assert torch.equal(logits(before.module), expected)


async def model_served(one: TorchBackend) -> str:
    policy = await one.publish()
    async with httpx.AsyncClient() as client:
        listed = (await client.get(f"{policy.base_url}/models")).json()
    assert [entry["id"] for entry in listed["data"]] == [policy.model]
    return policy.model


async def test_a_policy_is_served_under_its_name_unless_the_engine_has_one(tiny_model: Path) -> None:
    named = backend(tiny_model, "planner", engine=EngineConfig(name="mine"))
    solver = backend(tiny_model, "solver")
    async with started(named, solver):
        assert [await model_served(named), await model_served(solver)] == ["mine", "solver"]
        assert (await named.publish()).name == "planner"


class Plain(PolicyGradient):
    """What the base does by itself."""


class Roles(DrawnRun):
    """Whose rollouts have a row of each policy in ``acting``."""

    def __init__(self, directory: Path, acting: Sequence[str] = NAMES, **options: Any) -> None:
        super().__init__(directory, **options)
        self.acting = acting

    def _draw(self, task: Task, step: int) -> Group:
        rewards = np.random.default_rng([step, *task.id.encode()]).integers(0, 2, 2).astype(float)
        drawn = group(f"{task.id}.{step}", [1.0, 0.0, *rewards], rows=[len(self.acting)] * 4, seed=step)
        for member in drawn.rollouts:
            for row, name in zip(member.rows, self.acting, strict=True):
                row.policy = name
        drawn.task = task
        return drawn

    async def evaluate(self, *, step: int, resources: Sequence[AnyResource] = (), **_: Any) -> Evaluation:
        assert [resource.name for resource in resources] == list(NAMES)
        return Evaluation(step=step, tasks=self.held_out, rollouts=[], rewards=[])

    async def branch(self, points: Sequence[Any], **_: Any) -> list[list[RolloutRows]]:
        raise AssertionError("no credit here runs anything again")


Weights = dict[str, dict[str, torch.Tensor]]


async def trained(run: Roles, path: Path, **fields: Any) -> Weights:
    """The weights of each saved model, after three steps."""
    section = {
        "model": {"path": str(path), "device": "cpu", "lora": fields.pop("lora", None)},
        "steps": 3,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-3,
        "checkpoint_every": 2,
        "policies": {"planner": {"agents": ["planner"]}, "solver": {"agents": ["solver"], "backend": {"lr": 5e-4}}},
        **fields,
    }
    await Plain.from_section(section).run(run)
    assert set(run.results) == {f"model/{name}" for name in NAMES}
    return {name: load_file(Path(run.results[f"model/{name}"]) / "model.safetensors") for name in NAMES}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(weight, second[name]) for name, weight in first.items())


ADAPTERS = pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.2}], ids=["full", "adapters"])


@ADAPTERS
async def test_a_policy_whose_agents_do_not_act_keeps_its_weights(
    tiny_model: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    run = Roles(tmp_path, ["planner"])
    weights = await trained(run, tiny_model, lora=lora)
    before = load_file(tiny_model / "model.safetensors")
    assert same(weights["solver"], before)
    assert not same(weights["planner"], before)
    assert {resource.name: resource.version for resource in run.published} == {"planner": 3, "solver": 0}
    assert [run.logged[step]["solver/optimizer_steps"] for step in (1, 2, 3)] == [0, 0, 0]


@ADAPTERS
async def test_what_one_policy_becomes_does_not_depend_on_the_other(
    tiny_model: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    together = await trained(Roles(tmp_path / "together"), tiny_model, lora=lora)
    assert not same(together["planner"], together["solver"])
    other = {"planner": {"agents": ["planner"]}, "solver": {"agents": ["solver"], "backend": {"lr": 1e-2}}}
    changed = await trained(Roles(tmp_path / "changed"), tiny_model, lora=lora, policies=other)
    assert same(together["planner"], changed["planner"])
    assert not same(together["solver"], changed["solver"])


@ADAPTERS
async def test_a_resumed_run_ends_with_the_same_weights_of_both_to_the_bit(
    tiny_model: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    fields: dict[str, Any] = {"lora": lora, "epochs": 2, "mini_batches": 2}
    whole = Roles(tmp_path / "whole")
    expected = await trained(whole, tiny_model, **fields)
    (checkpoint, _) = whole.checkpoints
    resumed = Roles(tmp_path / "resumed", restored=checkpoint)
    weights = await trained(resumed, tiny_model, **fields)
    assert all(same(weights[name], expected[name]) for name in NAMES)
    assert [event for event in resumed.events if event.startswith("collect")] == ["collect 3"]
    versions = [{resource.name: resource.version for resource in run.published} for run in (whole, resumed)]
    assert versions[0] == versions[1]


async def test_one_policy_may_train_adapters_and_another_all_of_its_weights(tiny_model: Path, tmp_path: Path) -> None:
    policies = {
        "planner": {"agents": ["planner"]},
        "solver": {"agents": ["solver"], "backend": {"model": {"lora": {"rank": 2}}}},
    }
    run = Roles(tmp_path)
    await trained(run, tiny_model, policies=policies)
    checkpoint = Path(run.checkpoints[-1].path or "")
    kept = {name: load_file(checkpoint / name / "weights.safetensors") for name in NAMES}
    assert not any("lora_" in name for name in kept["planner"])
    assert all("lora_" in name for name in kept["solver"])


async def test_two_that_train_at_once_do_not_mix(tiny_model: Path) -> None:
    """Their locks are apart; what is shared is not written to."""
    rows = rollouts()
    for row in rows:
        row.advantages[row.mask] = 1.0
    alone = backend(tiny_model, "planner")
    async with started(alone):
        await alone.update([rows], LOSS, step=1)
        expected = logits(alone.policy.module)
    planner, solver = backend(tiny_model, "planner"), backend(tiny_model, "solver")
    async with started(planner, solver):
        await asyncio.gather(planner.update([rows], LOSS, step=1), solver.logprobs(rows))
        torch.testing.assert_close(logits(planner.policy.module), expected, atol=1e-6, rtol=0)
