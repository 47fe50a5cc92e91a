"""Demonstrations for an agent that talks to its model in two roles."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path
from typing import Any

import openai
from prompt.adding_agent import demonstrations_in, found_in, trainer
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning.records import Rollout, Task

PLAN, SAY = "Write the sum.", "Say the result."


def two_roles(base_url: str) -> Any:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)

    def ask(system: str, question: str) -> str:
        messages: list[Any] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        return client.chat.completions.create(model="small", messages=messages).choices[0].message.content or ""

    def agent(question: str) -> str:
        planned = ask(PLAN, question)
        return ask(SAY, planned)

    return agent


def answer(request: Received) -> Answer:
    """Right the more often the more it is shown, in each role by itself."""
    system, question = request.json["messages"][0]["content"], request.json["messages"][-1]["content"]
    shown = [one for one in demonstrations_in(request) if one["role"] == "assistant"]
    assert all(("+" in one["content"]) == (system == PLAN) for one in shown)  # no role is shown the other's
    if zlib.crc32(f"{system}{question}".encode()) % 100 >= 55 + 20 * len(shown):
        return text("?")
    if system == PLAN:
        return text(question.rstrip("?"))
    return text(str(sum(map(int, question.split("+")))) if "+" in question else "?")


def right(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == task.expected)


async def test_each_role_is_shown_its_own_conversations(tmp_path: Path, stub: StubServer) -> None:
    stub.reply(answer)
    run = trainer(tmp_path, stub, agent=two_roles(stub.base_url), reward=right)
    result = await asyncio.to_thread(run.fit)
    _, prompts, _ = await found_in(tmp_path, result.run_id)
    assert {(prompt.name, prompt.replaces) for prompt in prompts} == {("agent 1", PLAN), ("agent 2", SAY)}
    assert result.results["demonstrations"].startswith("4 for agent 1, 4 for agent 2: ")
    (comparison,) = result.comparisons
    assert comparison.difference > 0.3
