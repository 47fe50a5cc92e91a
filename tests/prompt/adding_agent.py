"""An agent that adds two numbers by asking a model, and a model that is right the more often the more it is shown."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning import Trainer
from agentlightning.config import RunnerConfig
from agentlightning.records import Prompt, Rollout, Task
from agentlightning.store import open_store
from agentlightning.store.base import Metric

SYSTEM = "Add the numbers."
BY_ITSELF, PER_DEMONSTRATION = 30, 20
"""Of a hundred questions, how many it answers rightly; and how many more for each demonstration."""


def tasks(count: int, start: int = 0) -> list[Task]:
    return [
        Task(id=f"t{number}", input=f"{number} + {number + 3}?", expected=str(2 * number + 3))
        for number in range(start, start + count)
    ]


def right(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == task.expected)


def agent_of(base_url: str, *, system: str = SYSTEM, examples: list[dict[str, Any]] | None = None) -> Any:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)

    def agent(question: str) -> str | None:
        messages = [{"role": "system", "content": system}, *(examples or []), {"role": "user", "content": question}]
        return client.chat.completions.create(model="small", messages=messages).choices[0].message.content  # type: ignore[arg-type]

    return agent


def demonstrations_in(request: Received) -> list[dict[str, Any]]:
    """The messages between the system prompt and the question."""
    return [message for message in request.json["messages"][:-1] if message["role"] != "system"]


def model(helps: Callable[[str], bool] = lambda answer: True) -> Callable[[Received], Answer]:
    """Answers the question; a demonstration helps where ``helps`` says so of its answer."""

    def reply(request: Received) -> Answer:
        question = request.json["messages"][-1]["content"]
        shown = [one["content"] for one in demonstrations_in(request) if one["role"] == "assistant"]
        first, second = map(int, re.findall(r"\d+", question))
        luck = zlib.crc32(question.encode()) % 100
        is_right = luck < BY_ITSELF + PER_DEMONSTRATION * sum(map(helps, shown))
        return text(str(first + second) if is_right else "I cannot say.")

    return reply


def trainer(
    folder: Path,
    server: StubServer,
    /,
    *,
    agent: Any = None,
    reward: Any = right,
    seed: int = 0,
    budget: int | None = None,
    count: int = 60,
    held_out: int = 20,
    **options: Any,
) -> Trainer:
    given = {"name": "few_shot", "validation_tasks": 24, "counts": [1, 4], "candidates": 4, "batch_tasks": 8, **options}
    return Trainer(
        agent or agent_of(server.base_url),
        tasks(count),
        reward,
        given,
        held_out=tasks(held_out, start=100),
        budget=budget,
        runner=RunnerConfig(concurrency=4, retries=0),
        directory=folder / "runs",
        store=url(folder),
        name="run",
        seed=seed,
    )


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


async def found_in(folder: Path, run_id: str) -> tuple[list[Rollout], list[Prompt], list[Metric]]:
    """A run's rollouts that learning cost, the prompts that it published, and its metrics."""
    store = open_store(url(folder))
    try:
        record = await store.run(run_id)
        assert record is not None
        prompts = [one for one in await store.published(record) if isinstance(one, Prompt)]
        rollouts = [one for one in await store.rollouts(run_id) if one.purpose in ("train", "validate")]
        return rollouts, prompts, await store.metrics(run_id)
    finally:
        await store.close()
