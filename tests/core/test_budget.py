"""The budget of a run: so many rollouts, and not one more, whatever the algorithm asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentlightning import Algorithm, Trainer
from agentlightning.algorithm import Run
from agentlightning.errors import BudgetError, ConfigError
from agentlightning.records import Rollout, Task
from agentlightning.store import open_store

TASKS = [{"id": str(number), "input": f"question {number}"} for number in range(6)]


def agent(question: str) -> str:
    return question


def score(rollout: Rollout, task: Task) -> float:
    return 1.0


def trainer(folder: Path, algorithm: Any, budget: Any) -> Trainer:
    return Trainer(
        agent,
        TASKS,
        score,
        algorithm,
        held_out=TASKS[:2],
        budget=budget,
        store=f"sqlite:///{folder}/store.db",
        directory=folder / "runs",
        name="budget",
    )


class Greedy(Algorithm):
    """Collects and validates what it is told to, with what was left before each, and evaluates at the end."""

    asks: tuple[int, ...] = ()
    fails_after = 99

    async def run(self, run: Run) -> None:
        self.left: list[int | None] = []
        self.refused = ""
        try:
            for step, count in enumerate(self.asks, 1):
                self.left.append(await run.rollouts_left())
                async for _ in run.collect(run.tasks[:1], group_size=count, step=step):
                    pass
                if step >= self.fails_after:
                    raise RuntimeError("cut off")
            self.left.append(await run.rollouts_left())
            await run.evaluate(step=1, purpose="validate", tasks=run.tasks[:1])
        except BudgetError as error:
            self.refused = str(error)
        await run.evaluate(step=9)


def greedy(*asks: int) -> Greedy:
    algorithm = Greedy.from_section({})
    algorithm.asks = asks
    return algorithm


async def purposes(folder: Path) -> list[str]:
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        (run,) = await store.runs()
        return [rollout.purpose for rollout in await store.rollouts(run.id)]
    finally:
        await store.close()


async def test_collections_and_validations_are_counted_and_evaluations_are_not(tmp_path: Path) -> None:
    algorithm = greedy(3, 2)
    await trainer(tmp_path, algorithm, 6).fit_async()
    assert (algorithm.left, algorithm.refused) == ([6, 3, 1], "")
    assert await purposes(tmp_path) == [*["train"] * 5, "validate", "evaluate", "evaluate"]


async def test_of_what_would_be_too_much_nothing_is_run(tmp_path: Path) -> None:
    algorithm = greedy(4, 3)
    await trainer(tmp_path, algorithm, 6).fit_async()
    assert algorithm.left == [6, 2]
    assert "asks for 3 rollouts, and 2 are left of the budget of 6" in algorithm.refused
    assert (await purposes(tmp_path)).count("train") == 4


async def test_without_a_budget_there_is_no_end_to_it(tmp_path: Path) -> None:
    algorithm = greedy(4, 3)
    await trainer(tmp_path, algorithm, None).fit_async()
    assert algorithm.left == [None, None, None]


async def test_what_a_run_asks_for_again_was_paid_for_before(tmp_path: Path) -> None:
    cut_off = greedy(4, 2)
    cut_off.fails_after = 2
    with pytest.raises(RuntimeError, match="cut off"):
        await trainer(tmp_path, cut_off, 6).fit_async()
    again = greedy(4, 2)
    await trainer(tmp_path, again, 6).fit_async(resume=True)
    assert (again.left, "0 are left" in again.refused) == ([0, 0, 0], True)
    assert (await purposes(tmp_path)).count("train") == 6


async def test_a_run_that_goes_on_may_have_a_larger_budget_and_no_smaller_one(tmp_path: Path) -> None:
    cut_off = greedy(4, 2)
    cut_off.fails_after = 2
    with pytest.raises(RuntimeError, match="cut off"):
        await trainer(tmp_path, cut_off, 6).fit_async()
    with pytest.raises(ConfigError, match="budget: was 6, now 5"):
        await trainer(tmp_path, greedy(4, 2), 5).fit_async(resume=True)
    again = greedy(4, 2)
    await trainer(tmp_path, again, 7).fit_async(resume=True)
    assert again.refused == ""


def test_a_budget_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget: "):
        trainer(tmp_path, greedy(1), 0)
