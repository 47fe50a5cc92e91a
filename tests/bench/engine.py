"""How fast the embedded engine samples one training step's rollouts: 8 tasks × 8 samples of two calls each.

A prompt of some 220 tokens, of which some 180 (system prompt and examples) are common to all, a call of 40
tokens, a tool result of some 20, an answer of 12. The model is the calculator example's, which its ``prepare.py``
makes. Run: ``python tests/bench/engine.py``
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from agentlightning_policy.engine import Engine
from agentlightning_policy.model import ModelConfig, PolicyModel

EXAMPLE = (
    "Question: Tom has 23 apples and buys {n} more. How many apples does he have now?\n"
    '<tool_call>{{"name": "calculator", "arguments": {{"expression": "23 + {n}"}}}}</tool_call>\n'
)
SYSTEM = "You solve word problems with a calculator. " + "".join(EXAMPLE.format(n=n) for n in (12, 48, 7))
TASK = "Anna reads {n} pages on Monday, 17 on Tuesday and 4 on every other day. How many pages does she read in a week?"
MODEL = Path(__file__).parents[2] / "examples" / "calculator" / "model"
TASKS, SAMPLES, FIRST, SECOND = 8, 8, 40, 12


async def rollout(client: httpx.AsyncClient, engine: Engine, name: str, task: int) -> int:
    """One rollout of two calls; returns the tokens it sampled."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": TASK.format(n=task + 11)},
    ]
    sampled = 0
    url, headers = f"{engine.base_url}/chat/completions", {"x-agentlightning-rollout": name}
    for length in (FIRST, SECOND):
        body = {"model": "policy", "messages": messages, "max_tokens": length, "return_token_ids": True}
        answer = await client.post(url, json=body, headers=headers)
        answer.raise_for_status()
        choice = answer.json()["choices"][0]
        sampled += len(choice["token_ids"])
        result = {"role": "tool", "content": f"The result is {task * 31} and the rest is {task}.", "tool_call_id": "1"}
        messages += [choice["message"], result]
    return sampled


async def main() -> None:
    """Two steps, with new weights (as far as the engine knows) before each."""
    policy = PolicyModel.load(ModelConfig(path=str(MODEL)))
    limits = httpx.Limits(max_connections=TASKS * SAMPLES)
    async with Engine(policy) as engine, httpx.AsyncClient(timeout=600, limits=limits) as client:
        for step in range(2):
            with policy.updating():
                pass
            before = replace(engine.sampler.stats)
            start, cpu_start = time.perf_counter(), time.process_time()
            work = [rollout(client, engine, f"{step}/{n}", n % TASKS) for n in range(TASKS * SAMPLES)]
            sampled = sum(await asyncio.gather(*work))
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
            stats = engine.sampler.stats
            print(
                f"{len(work)} rollouts in {seconds:.1f} s ({cpu:.1f} s of CPU): "
                f"{sampled} tokens sampled, {sampled / seconds:.0f} per second; "
                f"{stats.prompt_tokens - before.prompt_tokens} prompt tokens, "
                f"{stats.computed_tokens - before.computed_tokens} computed; {stats.steps - before.steps} steps"
            )


if __name__ == "__main__":
    asyncio.run(main())
