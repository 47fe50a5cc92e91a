"""What is captured, pushed, checked and brought back, with real vLLM; ``nox -s vllm``."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from drawn_run import DrawnRun
from vllm.conftest import change, config_of

from agentlightning.errors import PolicyError
from agentlightning.records import Policy
from agentlightning_grpo.algorithm import GRPO
from agentlightning_vllm.backend import VllmBackend

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1800)]

CHAT = [{"role": "user", "content": "What is 23 + 48? Answer with a number."}]
STEP = 1e-3
"""How far the weights go at a time, as their standard deviation."""


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


async def test_each_version_is_pushed_and_checked(backend: VllmBackend) -> None:
    await backend.publish()
    before = backend._publisher.published
    change(backend, STEP)
    policy = await backend.publish()
    after = backend._publisher.published
    assert before is not None
    assert after is not None
    assert backend.replicas is not None
    (replica,) = backend.replicas.replicas
    assert replica.out is None
    assert replica.before is not None
    off, apart = np.abs(replica.before - after.probe).mean(), np.abs(after.probe - before.probe).mean()
    print(f"versions are {apart:.5f} apart in the mean, and vLLM {off:.6f} from the trainer")
    assert off < apart / 2
    assert (await ask(policy, temperature=1.0))["version"] == policy.version == backend.policy.version


async def test_other_weights_are_noticed(backend: VllmBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM gets the version before in place of the present one."""
    await backend.publish()
    from agentlightning_vllm import publisher

    kept = backend._folder.parent / "kept"
    write = "write_adapter" if backend.config.model.lora else "write_model"
    original = getattr(publisher, write)
    original(backend.policy, kept)

    def wrong(policy: Any, folder: Path) -> None:
        shutil.copytree(kept, folder, dirs_exist_ok=True)

    change(backend, STEP)
    with monkeypatch.context() as patched:
        patched.setattr(publisher, write, wrong)
        with pytest.raises(PolicyError, match="does not serve version"):
            await backend.publish()
    change(backend, STEP)  # the right ones bring it back
    original(backend.policy, backend._folder if write == "write_model" else kept)
    await backend.aclose()


async def test_a_replica_that_is_killed_is_in_again_with_the_present_weights(backend: VllmBackend) -> None:
    await backend.start()
    await backend.publish()
    change(backend, STEP)
    policy = await backend.publish()
    expected = await ask(policy, temperature=0.0)
    (process,) = backend._processes
    assert process.alive
    (server,) = [
        each
        for each in psutil.Process().children(recursive=True)
        if "vllm.entrypoints.openai.api_server" in each.cmdline() and "launcher.py" not in " ".join(each.cmdline())
    ]
    os.kill(server.pid, signal.SIGKILL)
    again = await ask(policy, temperature=0.0)
    assert (again["ids"], again["version"]) == (expected["ids"], policy.version)
    assert again["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-3)


@pytest.mark.parametrize("lora", [True, False], ids=["lora", "full"])
async def test_grpo_trains_two_steps(lora: bool, tmp_path: Path) -> None:
    section = {
        "backend": "vllm",
        "steps": 2,
        "lr": 1e-4,
        "checkpoint_every": 0,
        "loss": {"sampler_correction": "token_truncate"},
    }
    algorithm = GRPO.from_section({**section, **_plain(config_of(lora))})
    run = DrawnRun(tmp_path)
    await algorithm.run(run)
    assert [policy.version for policy in run.published if isinstance(policy, Policy)] == [0, 1, 2]
    assert all("sampler_mismatch_mean" in numbers for step, numbers in run.logged.items() if step > 0)


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(config)
    if built["model"]["lora"] is None:
        del built["model"]["lora"]
    return {**built, "vllm": {"start": built["vllm"]["start"]}}
