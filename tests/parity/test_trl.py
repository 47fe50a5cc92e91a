"""Loss, gradient and advantages are those of TRL's `GRPOTrainer`, on random rollouts of a tiny model.

Needs ``trl==1.16.*`` beside the library, so it has a session of its own: ``nox -s parity``.
Axes: B = 9 sequences in 3 groups, T tokens of the longest completion.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from policy.rows import training_row

from agentlightning.advantages import advantages, advantages_by_component
from agentlightning.training_rows import TrainingRow
from agentlightning_grpo.presets import resolve_preset
from agentlightning_policy.batches import make_batches
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.losses import Totals, policy_loss

trl = pytest.importorskip("trl", reason="compares with TRL")

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

TEMPERATURE = 0.9
GROUPS, SIZE, MAX_COMPLETION = 3, 3, 10


def rewards_of(table: np.ndarray) -> list[Callable[..., list[float]]]:
    """Reward functions that give each column of ``table`` (B, K), whatever was written."""
    functions = []
    for column in range(table.shape[1]):

        def given(completions: list[Any], column: int = column, **_: Any) -> list[float]:
            return table[: len(completions), column].tolist()

        given.__name__ = f"component_{column}"
        functions.append(given)
    return functions


@pytest.fixture
def make_trainer(tiny_model: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(table: np.ndarray | None = None, **options: Any) -> Any:
        table = np.zeros((GROUPS * SIZE, 1)) if table is None else table
        config = trl.GRPOConfig(
            output_dir=str(tmp_path / "trl"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_dropout=True,
            per_device_train_batch_size=GROUPS * SIZE,
            gradient_accumulation_steps=1,
            num_generations=SIZE,
            max_completion_length=MAX_COMPLETION,
            temperature=TEMPERATURE,
            gradient_checkpointing=False,
            **options,
        )
        trainer = trl.GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(tiny_model),
            processing_class=AutoTokenizer.from_pretrained(tiny_model, padding_side="left"),
            reward_funcs=rewards_of(table),
            args=config,
            train_dataset=Dataset.from_list([{"prompt": "Tom has 23 apples."}] * GROUPS),
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


class Rollouts:
    """Random groups: ragged prompts and completions, log-probabilities of an older policy and of a reference."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        prompts = [rng.integers(3, 300, rng.integers(2, 7)).tolist() for _ in range(GROUPS)]
        self.prompts = [prompt for prompt in prompts for _ in range(SIZE)]
        self.completions = [rng.integers(3, 300, rng.integers(1, MAX_COMPLETION + 1)).tolist() for _ in self.prompts]
        self.rewards = rng.normal(size=(GROUPS, SIZE))
        self.noise_old = [rng.normal(scale=0.4, size=len(completion)) for completion in self.completions]
        self.noise_reference = [rng.normal(scale=0.3, size=len(completion)) for completion in self.completions]

    def rows(self, advantage: np.ndarray) -> list[TrainingRow]:
        rows = []
        for index, (prompt, completion) in enumerate(zip(self.prompts, self.completions, strict=True)):
            ids = prompt + completion
            row = training_row(ids, [*range(len(prompt), len(ids))], rollout=str(index), temperature=TEMPERATURE)
            row.advantages[row.mask] = advantage[index]
            rows.append(row)
        return rows

    def padded(self, rows: list[Any], *, left: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        width = max(map(len, rows))
        table = torch.zeros(len(rows), width, dtype=dtype)
        for place, row in enumerate(rows):
            values = torch.as_tensor(row, dtype=dtype)
            table[place, width - len(row) :] = values if left else 0
            if not left:
                table[place, : len(row)] = values
        return table

    def for_trl(self, advantage: np.ndarray, current: list[np.ndarray]) -> dict[str, torch.Tensor]:
        ones = [[1] * len(completion) for completion in self.completions]
        old = [now + noise for now, noise in zip(current, self.noise_old, strict=True)]
        reference = [now + noise for now, noise in zip(current, self.noise_reference, strict=True)]
        return {
            "prompt_ids": self.padded(self.prompts, left=True, dtype=torch.long),
            "prompt_mask": self.padded([[1] * len(prompt) for prompt in self.prompts], left=True, dtype=torch.long),
            "completion_ids": self.padded(self.completions, dtype=torch.long),
            "completion_mask": self.padded(ones, dtype=torch.long),
            "advantages": torch.from_numpy(advantage).float(),
            "old_per_token_logps": self.padded(old),
            "ref_per_token_logps": self.padded(reference),
            "num_items_in_batch": torch.tensor(float(sum(map(len, self.completions)))),
        }


def current_logprobs(module: torch.nn.Module, rollouts: Rollouts) -> list[np.ndarray]:
    (batch,) = make_batches(rollouts.rows(np.zeros(GROUPS * SIZE)), 10_000)
    with torch.no_grad():
        table = token_logprobs(module, batch).logprobs.numpy()
    found = {index: table[row, : batch.lengths[row]] for row, index in enumerate(batch.indices)}
    return [found[index] for index in range(len(found))]


CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "dapo": ({"loss_type": "dapo"}, "trl-1.16/dapo", {}),
    "grpo": ({"loss_type": "grpo"}, "trl-1.16/grpo", {}),
    "bnpo": ({"loss_type": "bnpo"}, "trl-1.16/bnpo", {}),
    "dr_grpo": ({"loss_type": "dr_grpo"}, "trl-1.16/dr_grpo", {"constant_length": MAX_COMPLETION}),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 5.0}, "trl-1.16/cispo", {}),
    "cispo, low cap": ({"loss_type": "cispo", "epsilon_high": 1.1}, "trl-1.16/cispo", {"cispo_max": 1.1}),
    "gspo": ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, "trl-1.16/gspo", {}),
    "sapo": ({"loss_type": "sapo"}, "trl-1.16/sapo", {}),
    "two-sided": ({"loss_type": "dapo", "delta": 1.4}, "trl-1.16/dapo", {"delta": 1.4}),
    "clip higher": (
        {"epsilon": 0.1, "epsilon_high": 0.28},
        "trl-1.16/dapo",
        {"epsilon_low": 0.1, "epsilon_high": 0.28},
    ),
    "KL": ({"beta": 0.1}, "trl-1.16/dapo", {"beta": 0.1}),
    "KL, uncorrected": (
        {"beta": 0.1, "use_bias_correction_kl": False},
        "trl-1.16/dapo",
        {"beta": 0.1, "kl_bias_correction": False},
    ),
    "gspo with KL": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "beta": 0.1},
        "trl-1.16/gspo",
        {"beta": 0.1},
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("options", "preset", "fields"), CASES.values(), ids=CASES.keys())
def test_loss_and_gradient(
    make_trainer: Callable[..., Any], options: dict[str, Any], preset: str, fields: dict[str, Any], seed: int
) -> None:
    """TRL computes padded rows in one piece, ours packed ones in several micro-batches (one for bnpo)."""
    trainer = make_trainer(**options)
    module = trainer.model.train()
    chosen = resolve_preset(preset, fields)
    rollouts = Rollouts(seed)
    advantage = np.concatenate(advantages(list(rollouts.rewards), chosen.advantage))
    current = current_logprobs(module, rollouts)

    expected = trainer._compute_loss(module, rollouts.for_trl(advantage, current))
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in module.named_parameters()}
    module.zero_grad()

    loss = torch.zeros(())
    totals = Totals(sequences=len(rollouts.completions), tokens=sum(map(len, rollouts.completions)))
    for batch in make_batches(rollouts.rows(advantage), 10_000 if options.get("loss_type") == "bnpo" else 40):
        share = policy_loss(
            token_logprobs(module, batch).logprobs,
            batch.pad([current[row] + rollouts.noise_old[row] for row in batch.indices]),
            batch.advantages,
            batch.mask,
            chosen.loss,
            totals,
            reference_logprobs=batch.pad([current[row] + rollouts.noise_reference[row] for row in batch.indices]),
        ).loss
        share.backward()
        loss += share.detach()

    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for name, weight in module.named_parameters():
        torch.testing.assert_close(
            weight.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages(make_trainer: Callable[..., Any], scale: str) -> None:
    rewards = np.random.default_rng(3).normal(size=(GROUPS, SIZE)).round(1)
    rewards[1] = 0.3
    got = np.concatenate(
        advantages(list(rewards), resolve_preset("trl-1.16/dapo", advantage={"scale": scale}).advantage)
    )
    trainer = make_trainer(rewards.reshape(-1, 1), scale_rewards=scale)
    np.testing.assert_allclose(got, advantages_of_trl(trainer), atol=1e-5)


def test_advantages_normalized_then_summed(make_trainer: Callable[..., Any]) -> None:
    rewards = np.random.default_rng(4).normal(size=(GROUPS, SIZE, 2)) * [1.0, 50.0]
    weights = np.array([1.0, 0.5])
    config = resolve_preset("trl-1.16/dapo", advantage={"normalize_then_sum": True}).advantage
    trainer = make_trainer(
        rewards.reshape(-1, 2), multi_objective_aggregation="normalize_then_sum", reward_weights=weights.tolist()
    )
    got = np.concatenate(advantages_by_component(list(rewards), weights, config))
    np.testing.assert_allclose(got, advantages_of_trl(trainer), atol=1e-5)


def advantages_of_trl(trainer: Any) -> np.ndarray:
    """What TRL makes of the rewards, on its own path: it samples completions, and has them scored."""
    trainer.model.train()
    prompts = [{"prompt": "Tom has 23 apples."}] * (GROUPS * SIZE)
    return trainer._generate_and_score_completions(prompts)["advantages"].numpy()
