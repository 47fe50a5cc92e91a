"""Real vLLM on the CPU, behind the backend; one server for each way of training."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agentlightning_policy.config import LoraConfig, ModelConfig, ServingConfig
from agentlightning_vllm.backend import VllmBackend
from agentlightning_vllm.config import StartConfig, VllmConfig, VllmOptions

MODEL = Path(__file__).parents[2] / "examples" / "calculator" / "model"
"""What the calculator example's ``prepare.py`` makes."""
START = StartConfig(
    python=os.environ.get("VLLM_PYTHON", sys.executable),
    dtype="float32",
    args=["--enforce-eager"],
    environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
    seconds=1200,
)
"""Types without arithmetic of their own on this CPU take longer, and their rounding hides small steps."""


def config_of(lora: bool) -> dict[str, Any]:
    return {
        "model": ModelConfig(path=str(MODEL), device="cpu", lora=LoraConfig(rank=8) if lora else None),
        "engine": ServingConfig(max_tokens=12, max_context=512),
        "vllm": VllmOptions(start=START),
    }


@pytest.fixture(scope="module", params=[True, False], ids=["lora", "full"])
async def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    made = VllmBackend(
        VllmConfig(**config_of(request.param)),
        name="policy",
        seed=0,
        max_updates=8,
        phase=lambda name, **_: None,
        directory=tmp_path_factory.mktemp("run"),
    )
    try:
        await made.start()
        yield made
    finally:
        await made.aclose()


def change(backend: VllmBackend, scale: float) -> None:
    """As an update does."""
    generator = torch.Generator().manual_seed(backend.policy.version)
    with backend.policy.updating(), torch.no_grad():
        for weight in backend.policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)
