"""A run that ends in the middle of branching, and goes on: what had ended counts, once, and the rest is made up for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from agentlightning import Trainer
from agentlightning.credit import Branch, BranchPoint
from agentlightning.errors import AlgorithmError
from agentlightning.records import Rollout, Span, Task
from agentlightning.store import open_store
from agentlightning.training_rows import Group, RolloutRows
from agentlightning_credit.replay import Replay

STEPS, COUNT, GROUP_SIZE = 2, 6, 3
TASKS = [{"id": "t", "input": "what is it?"}]


def two_calls(question: str) -> str:
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        for _ in range(2):
            answer = client.chat.completions.create(model="any", messages=messages, max_tokens=4)  # type: ignore
            said = answer.choices[0].message.content or ""
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "and?"}]
    return said


def is_even(rollout: Rollout, task: Task, spans: Sequence[Span]) -> float:
    last = [span.generation for span in spans if span.generation is not None][-1]
    return float(last.response_ids is not None and last.response_ids[-1] % 2 == 0)


class CutOff(Replay):
    """Ends the second step when some of its branches have ended, the first time."""

    step = 0
    ended: frozenset[str] = frozenset()
    store = ""

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        CutOff.step += 1

        async def cut(points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
            branching = asyncio.ensure_future(branch(points, count=count))
            while not (ended := await ended_branches(CutOff.store, step=STEPS)):
                await asyncio.sleep(0.01)
            branching.cancel()
            await asyncio.wait([branching])
            CutOff.ended = frozenset(ended)
            raise AlgorithmError("the end")

        first = CutOff.step == STEPS and not CutOff.ended
        await super().explore(groups, cut if first else branch)


async def branches(url: str) -> list[Rollout]:
    store = open_store(url)
    try:
        (run,) = await store.runs()
        return await store.rollouts(run.id, purpose="branch")
    finally:
        await store.close()


async def ended_branches(url: str, step: int) -> list[str]:
    return [it.id for it in await branches(url) if it.step == step and it.status == "succeeded"]


def test_a_run_that_ends_while_it_branches_goes_on(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CutOff, "step", 0)
    monkeypatch.setattr(CutOff, "ended", frozenset())
    monkeypatch.setattr(CutOff, "store", f"sqlite:///{tmp_path}/store.db")

    def trainer() -> Trainer:
        return Trainer(
            two_calls,
            TASKS,
            is_even,
            {
                "name": "grpo",
                "credit": {"name": f"{__name__}:CutOff", "count": COUNT},
                "model": {"path": str(tiny_model)},
                "steps": STEPS,
                "batch_tasks": 1,
                "group_size": GROUP_SIZE,
                "evaluate": {"greedy": False},
                "checkpoint_every": 1,
            },
            held_out=TASKS,
            store=CutOff.store,
            directory=tmp_path / "runs",
            name="cut off",
        )

    with pytest.raises(AlgorithmError, match="the end"):
        trainer().fit()
    before = {it.id: it for it in asyncio.run(branches(CutOff.store)) if it.id in CutOff.ended}
    assert before

    assert trainer().fit(resume=True).status == "succeeded"
    after = asyncio.run(branches(CutOff.store))
    assert {it.id: it for it in after if it.id in before} == before
    assert {it.status for it in after} == {"succeeded"}
    states = Counter((it.step, it.replays.rollout_id, it.replays.calls) for it in after if it.replays is not None)
    assert set(states.values()) == {COUNT}
    assert {step for step, *_ in states} == {1, 2}
