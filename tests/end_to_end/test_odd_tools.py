"""A tool whose schema has an integer beyond 64 bits: the call is recorded whole, and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from agentlightning import Algorithm, Trainer
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import NoConfig
from agentlightning.records import Span
from agentlightning.training_rows import Group
from agentlightning_policy.config import ModelConfig
from agentlightning_policy.engine import Engine
from agentlightning_policy.model import PolicyModel

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "factor",
            "parameters": {"type": "object", "properties": {"number": {"type": "integer", "maximum": 2**70}}},
        },
    }
]


class Collecting(Algorithm):
    def __init__(self, path: Path) -> None:
        super().__init__(NoConfig())
        self.path = path
        self.groups: list[Group] = []
        self.spans: list[Span] = []

    async def run(self, run: Any) -> None:
        async with Engine(PolicyModel.load(ModelConfig(path=str(self.path)))) as engine:
            await run.publish(engine.resource("policy"))
            self.groups = [group async for group in run.collect(run.tasks, group_size=2, step=1)]
        for group in self.groups:
            for rollout in group.all_rollouts:
                self.spans += await run.spans(rollout)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_call_with_such_a_tool_is_recorded_and_trained_on(tmp_path: Path, tiny_model: Path, api: str) -> None:
    async def agent(question: str) -> Any:
        async with openai.AsyncOpenAI() as client:
            if api == "chat":
                messages: list[Any] = [{"role": "user", "content": question}]
                return (
                    await client.chat.completions.create(model="m", messages=messages, tools=TOOLS, max_tokens=8)
                ).id
            tools: list[Any] = [{"type": "function", **TOOLS[0]["function"]}]
            return (await client.responses.create(model="m", input=question, tools=tools, max_output_tokens=8)).id

    algorithm = Collecting(tiny_model)
    Trainer(
        agent,
        [{"input": "23 + 48?"}],
        lambda rollout, task: 1.0,
        algorithm,
        held_out=[{"input": "2?"}],
        store=f"sqlite:///{tmp_path / 'store.db'}",
        directory=tmp_path / "runs",
        progress=make_progress(quiet=True),
    ).fit()
    generations = [span.generation for span in algorithm.spans if span.generation is not None]
    assert [said.provenance for said in generations] == ["exact"] * 2
    assert all(said.tools[0]["function"] == TOOLS[0]["function"] for said in generations)
    rows = [row for group in algorithm.groups for row in group.rows]
    assert len(rows) == 2
    assert all(row.mask.any() for row in rows)
