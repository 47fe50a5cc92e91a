"""Textual gradients with a beam: the search, and the bandits that select."""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import rule_tasks
from prompt_runs import metrics_of, published_prompts, rollouts_of
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning import Task
from agentlightning_prompt.beam_selection import Arms, successive_rejects, ucb


def reflect(request: Received) -> Answer:
    """Names the kinds that went wrong, then writes a prompt with one of them more, or the same in other words."""
    asked = request.json["messages"][0]["content"]
    if "reasons why" in asked:
        kinds = dict.fromkeys(re.findall(r"(\w+) question", asked))
        return text("".join(f"<START>nothing is said of {kind}<END>" for kind in kinds))
    if "variation of" in asked:
        found = re.search(r"<START>(.*)<END>", asked.split("Instruction:")[1])
        return text(f"<START>Please. {found[1] if found else ''}<END>")
    prompt, kind = re.search(r'prompt is:\n"(.*?)"', asked), re.search(r"nothing is said of (\w+)", asked)
    assert prompt is not None
    assert kind is not None
    return text(f"<START>{prompt[1]} {kind[1]}<END>")


SMALL: dict[str, Any] = {"name": "apo", "minibatch": 6, "beam": 2, "successors": 3, "selection_rollouts": 30}


@pytest.mark.parametrize("selection", ["ucb", "successive_rejects"])
async def test_prompts_get_better_step_by_step(tmp_path: Path, stub: StubServer, selection: str) -> None:
    stub.reply(reflect)
    options = {**SMALL, "steps": 3, "selection": selection, "selection_rollouts": 70}
    trainer = rule_tasks.trainer(tmp_path, stub, **options, count=26, validation_tasks=12)
    result = await asyncio.to_thread(trainer.fit)
    kinds = set(re.findall(r"\w+", (await published_prompts(tmp_path, result.run_id))["rules"].template or ""))
    assert len(kinds & set(rule_tasks.KINDS)) >= 3
    before, after = re.findall(r"\d\.\d+", result.results["prompts"])
    assert float(after) >= float(before) + 0.15


@pytest.mark.parametrize("budget", [10, 46, 58, 75])
async def test_the_budget_is_never_exceeded_and_all_that_was_paid_for_is_used(
    tmp_path: Path, stub: StubServer, budget: int
) -> None:
    stub.reply(reflect)
    result = await asyncio.to_thread(rule_tasks.trainer(tmp_path, stub, **SMALL, budget=budget).fit)
    purposes = Counter(rollout.purpose for rollout in await rollouts_of(tmp_path, result.run_id))
    metrics = await metrics_of(tmp_path, result.run_id)
    assert purposes["train"] + purposes["validate"] <= budget
    assert metrics["candidate_rollouts_unused"] == 0
    assert "left of the budget" in result.results["stopped"]


async def test_a_prompt_without_errors_is_not_expanded_and_the_search_ends(tmp_path: Path, stub: StubServer) -> None:
    result = await asyncio.to_thread(rule_tasks.trainer(tmp_path, stub, **SMALL, reward=lambda rollout, task: 1.0).fit)
    assert stub.requests == []
    assert "no new prompt came of the last 2 steps" in result.results["stopped"]


class Drawn:
    """Trials of arms whose scores were drawn before: the same for each arm and task."""

    def __init__(self, means: list[float], tasks: int) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self.scores = {
            f"arm {arm}": (rng.random(tasks) < mean).astype(float).tolist() for arm, mean in enumerate(means)
        }
        self.paid: set[tuple[str, str]] = set()
        self.compared: set[str] = set()

    @property
    def rollouts(self) -> int:
        return len(self.paid)

    async def run(self, candidate: dict[str, str], tasks: list[Task], *, step: int) -> list[Any]:
        self.paid |= {(candidate["p"], task.id) for task in tasks}
        return []

    def found(self, candidate: dict[str, str], tasks: list[Task]) -> list[Any]:
        return [
            type("Scored", (), {"score": self.scores[candidate["p"]][int(task.id)]})
            for task in tasks
            if (candidate["p"], task.id) in self.paid
        ]


def arms_of(means: list[float], tasks: int = 400) -> tuple[Drawn, Arms]:
    drawn: Any = Drawn(means, tasks)
    candidates = [{"p": name} for name in drawn.scores]
    return drawn, Arms(drawn, candidates, [Task(id=str(number), input="") for number in range(tasks)], step=1)


async def test_successive_rejects_runs_each_phase_as_the_paper_says() -> None:
    """Audibert, Bubeck & Munos 2010, section 4: with K = 4 and n = 100, n_k = 16, 21, 31."""
    drawn, arms = arms_of([0.9, 0.5, 0.3, 0.1])
    (best,) = await successive_rejects(arms, beam=1, rollouts=100)
    logarithmic = 0.5 + 1 / 2 + 1 / 3 + 1 / 4
    phases = [math.ceil(96 / (logarithmic * (5 - phase))) for phase in (1, 2, 3)]
    assert best == {"p": "arm 0"}
    count = Counter(name for name, _ in drawn.paid)
    assert sorted(count.values()) == sorted([phases[0], phases[1], phases[2], phases[2]])
    assert len(drawn.paid) <= 100


async def test_ucb_spends_most_on_what_is_good() -> None:
    drawn, arms = arms_of([0.2, 0.9, 0.1, 0.2])
    best = await ucb(arms, beam=1, rollouts=200, exploration=0.5)
    count = Counter(name for name, _ in drawn.paid)
    assert best == [{"p": "arm 1"}]
    assert count["arm 1"] > 100
    assert min(count.values()) >= 4
    assert len(drawn.paid) <= 200


async def test_the_more_exploration_the_more_evenly_are_the_arms_run() -> None:
    least = []
    for exploration in (0.0, 1.0, 100.0):
        drawn, arms = arms_of([0.2, 0.9, 0.1, 0.2])
        await ucb(arms, beam=1, rollouts=200, exploration=exploration)
        least.append(min(Counter(name for name, _ in drawn.paid).values()))
    assert least == sorted(set(least))
    assert least[-1] == 48


async def test_a_bandit_without_tasks_left_ends() -> None:
    drawn, arms = arms_of([0.5, 0.6], tasks=5)
    assert len(await ucb(arms, beam=1, rollouts=1000, exploration=1.0)) == 1
    assert len(drawn.paid) == 10
