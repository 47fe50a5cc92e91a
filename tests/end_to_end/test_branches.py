"""Rollouts that repeat another up to a call and go on afresh: what a state is worth, what it costs, who diverges."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import openai
import pytest
import torch

from agentlightning import Trainer, semconv
from agentlightning.config import NoConfig
from agentlightning.credit import Branch, BranchPoint, Credit
from agentlightning.records import Rollout, Span, Task
from agentlightning.store import open_store
from agentlightning.training_rows import Group, RolloutRows
from agentlightning_policy.model import ModelConfig, PolicyModel

TEMPERATURE, COUNT, CALLS = 0.7, 48, 3
TASKS = [{"id": "t", "input": "what is it?"}]
ticks = itertools.count()


def converse(question: str, look_up: Callable[[str], str]) -> str:
    """Three calls, with what a tool finds between them; the last writes one token."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        for turn in range(CALLS):
            length = 1 if turn == CALLS - 1 else 6
            answer = client.chat.completions.create(model="any", messages=messages, max_tokens=length)  # type: ignore
            said = answer.choices[0].message
            found = look_up(said.content or "")
            messages += [{"role": "assistant", "content": said.content}, {"role": "user", "content": found}]
    return said.content or ""


def steady(question: str) -> str:
    return converse(question, lambda text: f"{len(text)} letters")


def wavering(question: str) -> str:
    """Its tool tells the time."""
    return converse(question, lambda text: f"it is {next(ticks)}")


def is_even(rollout: Rollout, task: Task, spans: Sequence[Span]) -> float:
    """Whether the last token has an even id."""
    last = [span.generation for span in spans if span.generation is not None][-1]
    return float(last.response_ids is not None and last.response_ids[-1] % 2 == 0)


class Look(Credit):
    """Branches from the state before each call of a rollout, and notes what it sees."""

    Config: ClassVar[type[msgspec.Struct]] = NoConfig
    origin: ClassVar[RolloutRows]
    found: ClassVar[list[list[RolloutRows]]]

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        type(self).origin = groups[0].rollouts[0]
        points = [BranchPoint(self.origin.rollout, calls) for calls in range(CALLS)]
        type(self).found = await branch(points, count=COUNT)

    def assign(self, groups: Sequence[Group]) -> dict[str, float]:
        for member in groups[0].rollouts:
            member.set_advantage(0.0)
        return {"looked": float(len(self.found))}


def fit(agent: Callable[[str], str], tmp_path: Path, model: Path) -> dict[str, float]:
    """One step of a run; returns what it logged."""
    store = f"sqlite:///{tmp_path}/store.db"
    result = Trainer(
        agent,
        TASKS,
        is_even,
        {
            "name": "grpo",
            "credit": f"{__name__}:Look",
            "model": {"path": str(model)},
            "steps": 1,
            "batch_tasks": 1,
            "group_size": 2,
            "temperature": TEMPERATURE,
            "evaluate": {"greedy": False},
            "checkpoint_every": 0,
        },
        store=store,
        directory=tmp_path / "runs",
        held_out=TASKS,
    ).fit()

    async def metrics() -> dict[str, float]:
        opened = open_store(store)
        try:
            return {metric.name: metric.value for metric in await opened.metrics(result.run_id)}
        finally:
            await opened.close()

    return asyncio.run(metrics())


def test_a_state_is_worth_what_its_branches_earn(tmp_path: Path, tiny_model: Path) -> None:
    logged = fit(steady, tmp_path, tiny_model)
    origin = Look.origin
    assert [len(members) for members in Look.found] == [COUNT] * CALLS
    for repeated, members in enumerate(Look.found):
        for member in members:
            llm = [span for span in member.spans if span.kind == "llm"]
            assert [semconv.REPLAYED in span.attributes for span in llm] == [at < repeated for at in range(CALLS)]
            for (row, made), (of_origin, original) in zip(
                member.transitions[:repeated], origin.transitions[:repeated], strict=True
            ):
                assert row.token_ids[: made.end].tolist() == of_origin.token_ids[: original.end].tolist()
                assert row.logprobs[made.start : made.end].tolist() == pytest.approx(
                    of_origin.logprobs[original.start : original.end].tolist(), abs=1e-6
                )
    assert len({tuple(row.token_ids.tolist()) for member in Look.found[0] for row in member.rows}) > 1

    row, last = origin.transitions[-1]
    policy = PolicyModel.load(ModelConfig(path=str(tiny_model)))
    with torch.inference_mode():
        state = torch.from_numpy(row.token_ids[: last.start].astype("int64"))[None]
        probabilities = (policy.module(state).logits[0, -1] / TEMPERATURE).softmax(-1)
    exact = float(probabilities[::2].sum())
    value = sum(member.rollout.total_reward or 0.0 for member in Look.found[-1]) / COUNT
    assert abs(value - exact) < 4 * math.sqrt(exact * (1 - exact) / COUNT)

    assert logged["looked"] == CALLS
    assert logged["branches"] == CALLS * COUNT
    assert logged["branches_diverged"] == 0
    assert logged["calls_repeated"] == (0 + 1 + 2) * COUNT
    assert logged["calls_sampled_in_branches"] == (3 + 2 + 1) * COUNT
    assert logged["rollouts"] == 2  # branches are no part of what was collected


def test_an_agent_that_goes_another_way_is_left_out(tmp_path: Path, tiny_model: Path) -> None:
    logged = fit(wavering, tmp_path, tiny_model)
    assert [len(members) for members in Look.found] == [COUNT, COUNT, 0]
    assert logged["branches_diverged"] == COUNT
