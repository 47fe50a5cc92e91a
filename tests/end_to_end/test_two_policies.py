"""An agent with two roles and an adapter for each, by GRPO: what each learns, and each served by its folder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from agentlightning import Trainer, span
from agentlightning.algorithm import Evaluation
from agentlightning.credit import Credit
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning.serving import Servable, ServedModel
from agentlightning.store import open_store
from agentlightning.trainer import FitResult
from agentlightning.training_rows import Group

TASKS = [{"id": str(number), "input": f"task {number}"} for number in range(4)]
ROLES = ("vowels", "consonants")
UNREACHABLE = "http://127.0.0.1:1/v1"


class OwnReward(Credit):
    """The reward of the call itself, against the mean of its group's."""

    def assign(self, groups: Sequence[Group]) -> None:
        for group in groups:
            calls = [pair for member in group.rollouts for pair in member.transitions]
            mean = sum(transition.reward or 0.0 for _, transition in calls) / max(len(calls), 1)
            for row, transition in calls:
                row.set_advantage(transition, (transition.reward or 0.0) - mean)


def answer(question: str, base_url: str = UNREACHABLE, **options: Any) -> str:
    asked: Any = [{"role": "user", "content": question}]
    with openai.OpenAI(base_url=base_url, api_key="k", max_retries=0) as client:
        said = client.chat.completions.create(model="any", messages=asked, max_tokens=12, **options)
    return said.choices[0].message.content or ""


def two_roles(question: str) -> dict[str, str]:
    answers = {}
    for role in ROLES:
        with span(role, kind="agent", agent=role):
            answers[role] = answer(question)
    return answers


def share_of_vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / max(len(text), 1)


def share_of_consonants(text: str) -> float:
    return sum(letter in "bcdfghjklmnpqrstvwxyz" for letter in text) / max(len(text), 1)


SHARES = {"vowels": share_of_vowels, "consonants": share_of_consonants}


def letters(rollout: Rollout, task: Task, spans: list[Span]) -> list[Reward]:
    """The outcome, and what each role's call was worth."""
    calls = {one.agent: one.id for one in spans if one.kind == "llm"}
    worth = {role: SHARES[role](rollout.output[role]) for role in ROLES}
    steps = [Reward(name=role, value=worth[role], span_id=calls[role]) for role in ROLES]
    return [Reward(name="letters", value=sum(worth.values())), *steps]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def result(folder: Path, tiny_model: Path) -> FitResult:
    return Trainer(
        two_roles,
        TASKS,
        letters,
        {
            "name": "grpo",
            "model": {"path": str(tiny_model), "lora": {"rank": 8}},
            "credit": f"{__name__}:OwnReward",
            "policies": {role: {"agents": [role]} for role in ROLES},
            "steps": 8,
            "batch_tasks": 4,
            "group_size": 8,
            "lr": 0.04,
            "checkpoint_every": 4,
            "evaluate": {"samples": 8},
        },
        held_out=TASKS,
        store=f"sqlite:///{folder}/store.db",
        directory=folder / "runs",
    ).fit()


def worth_of(evaluation: Evaluation, role: str) -> float:
    """What a role's answers were worth, in the mean."""
    found = [SHARES[role](rollout.output[role]) for rollout in evaluation.rollouts]
    return sum(found) / len(found)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_learns_what_its_own_calls_were_worth(result: FitResult, role: str) -> None:
    before, after = sorted((one for one in result.evaluations if one.variant == "sampled"), key=lambda one: one.step)
    assert worth_of(after, role) > worth_of(before, role) + 0.1


def test_the_numbers_and_the_models_bear_the_names_of_the_policies(result: FitResult, folder: Path) -> None:
    async def names() -> set[str]:
        store = open_store(f"sqlite:///{folder}/store.db")
        try:
            return {metric.name for metric in await store.metrics(result.run_id)}
        finally:
            await store.close()

    logged = asyncio.run(names())
    assert {f"{role}/{name}" for role in ROLES for name in ("loss", "grad_norm", "optimizer_steps")} <= logged
    assert {name: Path(path).name for name, path in result.results.items()} == {f"model/{role}": role for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_one_of_them_is_served_by_its_folder(result: FitResult, role: str) -> None:
    (greedy,) = [one for one in result.evaluations if one.variant == "greedy" and one.step == 8]
    with ServedModel(Servable.of_folder(Path(result.results[f"model/{role}"]))) as served:
        answers = {rollout.task_id: rollout.output[role] for rollout in greedy.rollouts}
        for task in greedy.tasks:
            assert answer(task.input, served.base_url, temperature=0) == answers[task.id]
