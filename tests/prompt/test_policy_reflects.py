"""``reflection: policy``: the model that answers the agent reflects, too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import openai
import rule_tasks
from prompt_runs import metrics_of, rollouts_of
from stub_server import StubServer

client = openai.AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="k")
PROMPT = "Use the calculator tool."


async def agent(question: str) -> str:
    messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": question}]
    answer = await client.chat.completions.create(model="m", messages=messages, max_tokens=4)  # type: ignore[arg-type]
    return answer.choices[0].message.content or ""


async def test_a_policy_that_writes_nonsense_is_asked_counted_and_given_up(
    tmp_path: Path, stub: StubServer, tiny_model_of: Callable[[str], Path]
) -> None:
    options = {
        "agent": agent,
        "reward": lambda rollout, task: 0.0,
        "model": {"path": str(tiny_model_of("llama")), "device": "cpu"},
        "engine": {"max_context": 4096},
        "temperature": 0.0,
        "reflection": {"model": "policy", "max_tokens": 8, "attempts": 2},
        "steps": 2,
        "count": 8,
        "validation_tasks": 2,
    }
    result = await asyncio.to_thread(rule_tasks.trainer(tmp_path, stub, **options).fit)
    metrics = await metrics_of(tmp_path, result.run_id)
    assert metrics["reflection_calls"] == metrics["reflection_unusable"] == 2 * 2
    assert metrics["reflection_tokens"] > 1000
    assert result.results["prompts"].startswith("unchanged")
    assert stub.requests == []
    assert all(rollout.status == "succeeded" for rollout in await rollouts_of(tmp_path, result.run_id))
