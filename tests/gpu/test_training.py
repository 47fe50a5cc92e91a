"""Training on CUDA: the same numbers as on the CPU. Skipped where there is no such device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from drawn_run import DrawnRun
from policy.rows import rollouts

from agentlightning_grpo.algorithm import GRPO
from agentlightning_policy.batches import make_batches
from agentlightning_policy.logprobs import token_logprobs
from agentlightning_policy.model import ModelConfig, PolicyModel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_log_probabilities_are_those_of_the_cpu(tiny_model: Path) -> None:
    (batch,) = make_batches(rollouts(), 10_000)
    cpu, cuda = (
        token_logprobs(PolicyModel.load(ModelConfig(path=str(tiny_model), device=device)).module, batch).logprobs.cpu()
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(cuda, cpu, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_a_step_of_grpo_runs(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    run = DrawnRun(tmp_path)
    model = {"path": str(tiny_model), "device": "cuda", "dtype": dtype}
    loss = {"beta": 0.1, "sampler_correction": "token_truncate"}
    section = {"model": model, "steps": 2, "lr": 1e-3, "loss": loss, "checkpoint_every": 1, "epochs": 2}
    await GRPO.from_section(section).run(run)
    assert run.logged[2]["loss"] != 0
    resumed = DrawnRun(tmp_path / "resumed", restored=run.checkpoints[0])
    await GRPO.from_section(section).run(resumed)
    assert resumed.results["model"]
