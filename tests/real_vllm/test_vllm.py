"""What is captured, pushed, checked and brought back, with real vLLM; ``nox -s vllm``."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import openai
import psutil
import pytest
import pytest_asyncio
import torch

from agentlightning import Trainer
from agentlightning.errors import PolicyError
from agentlightning.records import Policy, Rollout, Task
from agentlightning.store import open_store
from agentlightning_policy.compute import compute_async
from agentlightning_policy.config import LoraConfig, ModelConfig, ServingConfig
from agentlightning_policy.model import PolicyModel
from agentlightning_vllm import publisher
from agentlightning_vllm.backend import VllmBackend
from agentlightning_vllm.config import StartConfig, VllmConfig, VllmOptions

pytestmark = pytest.mark.timeout(1800)

MODULE = "vllm.entrypoints.openai.api_server"
CHAT = [{"role": "user", "content": "What is 23 + 48? Answer with a number."}]
STEP = 1e-3
"""How far the weights go at a time, as their standard deviation."""
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


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["lora", "full"])
async def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    made = VllmBackend(
        VllmConfig(
            model=ModelConfig(path=str(MODEL), device="cpu", lora=LoraConfig(rank=8) if request.param else None),
            engine=ServingConfig(max_tokens=12, max_context=512),
            vllm=VllmOptions(start=START),
        ),
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


def change(backend: VllmBackend) -> None:
    """As an update does."""
    generator = torch.Generator().manual_seed(backend.policy.version)
    with backend.policy.updating(), torch.no_grad():
        for weight in backend.policy.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * STEP)


async def ask(policy: Policy, **fields: Any) -> dict[str, Any]:
    """The tokens, log-probabilities and version of an answer, streamed or not."""
    body = {"model": policy.model, "messages": CHAT, "logprobs": True, "return_token_ids": True, **policy.sampling}
    async with httpx.AsyncClient(timeout=600) as client:
        url = f"{policy.base_url}/chat/completions"
        if not fields.get("stream"):
            answer = await client.post(url, json={**body, **fields})
            assert answer.status_code == 200, answer.text
            return _captured([answer.json()])
        async with client.stream("POST", url, json={**body, **fields}) as stream:
            lines = [line async for line in stream.aiter_lines()]
    parts = [line.removeprefix("data: ") for line in lines if line.startswith("data: ") and "[DONE]" not in line]
    return _captured([httpx.Response(200, text=part).json() for part in parts])


def _captured(parts: list[dict[str, Any]]) -> dict[str, Any]:
    choices = [part["choices"][0] for part in parts if part["choices"]]
    shown = [token["logprob"] for each in choices for token in (each.get("logprobs") or {}).get("content") or []]
    prompt = next(part["prompt_token_ids"] for part in parts if part.get("prompt_token_ids"))
    ids = [id for each in choices for id in each.get("token_ids") or []]
    return {"prompt": prompt, "ids": ids, "logprobs": shown, "version": parts[0]["policy_version"]}


@pytest.mark.asyncio(loop_scope="module")
async def test_captured_tokens_are_vllms_own(backend: VllmBackend) -> None:
    policy = await backend.publish()
    assert backend.replicas is not None
    (replica,) = backend.replicas.replicas
    model = backend._publisher.published.served.model  # type: ignore[union-attr]
    for fields in ({"temperature": 1.0, "seed": 5}, {"temperature": 0.7, "seed": 6}, {"temperature": 0.0}):
        whole, streamed = await ask(policy, **fields), await ask(policy, **fields, stream=True)
        assert whole["ids"] == streamed["ids"]
        assert whole["logprobs"] == pytest.approx(streamed["logprobs"], abs=1e-4)
        body = {"model": model, "prompt": whole["prompt"], "max_tokens": 12, "logprobs": 0, "return_token_ids": True}
        async with httpx.AsyncClient(timeout=600) as client:
            own = (await client.post(f"{replica.url}/v1/completions", json={**body, **fields})).json()["choices"][0]
        assert own["token_ids"] == whole["ids"]
        assert own["logprobs"]["token_logprobs"] == pytest.approx(whole["logprobs"], abs=1e-4)
        assert whole["version"] == policy.version


@pytest.mark.asyncio(loop_scope="module")
async def test_each_version_is_pushed_and_checked(backend: VllmBackend) -> None:
    await backend.publish()
    before = backend._publisher.published
    change(backend)
    policy = await backend.publish()
    after = backend._publisher.published
    assert before is not None
    assert after is not None
    assert backend.replicas is not None
    (replica,) = backend.replicas.replicas
    assert replica.out is None
    assert replica.before is not None
    off, apart = np.abs(replica.before - after.probe).mean(), np.abs(after.probe - before.probe).mean()
    assert off < apart / 2
    assert (await ask(policy, temperature=1.0))["version"] == policy.version == backend.policy.version


@pytest.mark.asyncio(loop_scope="module")
async def test_other_weights_are_noticed(backend: VllmBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vLLM gets the version before in place of the present one, then the next."""
    await backend.publish()
    name = "write_adapter" if backend.config.model.lora is not None else "write_model"
    await compute_async(getattr(publisher, name), backend.policy, tmp_path)

    def wrong(policy: PolicyModel, folder: Path) -> None:
        shutil.copytree(tmp_path, folder, dirs_exist_ok=True)

    change(backend)
    with monkeypatch.context() as patched:
        patched.setattr(publisher, name, wrong)
        with pytest.raises(PolicyError, match="does not serve version"):
            await backend.publish()
    change(backend)
    policy = await backend.publish()
    assert (await ask(policy, temperature=1.0))["version"] == policy.version


@pytest.mark.asyncio(loop_scope="module")
async def test_a_replica_that_is_killed_is_in_again_with_the_present_weights(backend: VllmBackend) -> None:
    await backend.publish()
    change(backend)
    policy = await backend.publish()
    expected = await ask(policy, temperature=0.0)
    of_server = [each for each in psutil.Process().children(recursive=True) if MODULE in each.cmdline()]
    os.kill(of_server[-1].pid, signal.SIGKILL)  # the launcher is the first
    again = await ask(policy, temperature=0.0)
    assert (again["ids"], again["version"]) == (expected["ids"], policy.version)
    assert again["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)


def answer(question: str) -> str:
    """An agent that knows nothing of training."""
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0, timeout=600) as client:
        messages = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="any", messages=messages, max_tokens=12).choices[0].message.content


def share_of_vowels(rollout: Rollout, task: Task) -> float:
    return sum(letter in "aeiou" for letter in rollout.output) / max(len(rollout.output), 1)


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
def test_grpo_trains_two_steps(lora: bool, tmp_path: Path) -> None:
    tasks = [{"id": str(number), "input": f"What is {number} + 48?"} for number in range(2)]
    algorithm = {
        "name": "grpo",
        "backend": "vllm",
        "steps": 2,
        "batch_tasks": 2,
        "group_size": 4,
        "lr": 1e-4,
        "checkpoint_every": 0,
        "loss": {"sampler_correction": "token_truncate"},
        "model": {"path": str(MODEL), "device": "cpu", **({"lora": {"rank": 8}} if lora else {})},
        "engine": {"max_context": 512},
        "vllm": {"start": msgspec.to_builtins(START)},
    }
    store = f"sqlite:///{tmp_path}/store.db"
    result = Trainer(answer, tasks, share_of_vowels, algorithm, store=store, directory=tmp_path / "runs").fit()
    numbers = asyncio.run(logged(store, result.run_id, "sampler_mismatch_mean"))
    assert [step for step, _ in numbers] == [1, 2]
    assert all(0 <= value < 0.01 for _, value in numbers), numbers


async def logged(store: str, run: str, name: str) -> list[tuple[int, float]]:
    opened = open_store(store)
    try:
        return [(metric.step, metric.value) for metric in await opened.metrics(run) if metric.name == name]
    finally:
        await opened.close()
