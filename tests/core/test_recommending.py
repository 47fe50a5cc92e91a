"""What is said of the levers of a comparison: which is shown to be better, and which is worth it. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agentlightning.algorithm import Evaluation
from agentlightning.levers.accounts import Account, Cost
from agentlightning.levers.recommending import Row, corrected, holm, recommend
from agentlightning.records import Task
from agentlightning.report import compare, mcnemar_exact


def test_p_values_are_corrected_as_holm_does() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_of_levers_that_change_nothing_one_is_rarely_called_better() -> None:
    rng = np.random.default_rng(0)
    levers, tasks, times, wrong = 4, 100, 2000, 0
    for _ in range(times):
        before, after = rng.random(tasks) < 0.4, rng.random((levers, tasks)) < 0.4
        gained, lost = (after & ~before).sum(1), (~after & before).sum(1)
        ps = holm([mcnemar_exact(int(up), int(down)) for up, down in zip(gained, lost, strict=True)])
        wrong += any(p <= 0.05 and up > down for p, up, down in zip(ps, gained, lost, strict=True))
    assert wrong / times <= 0.05


def outcomes(right: int, *, total: int = 60, first: int = 0) -> Evaluation:
    """So many right answers, from task ``first`` on."""
    rewards = [float(first <= number < first + right) for number in range(total)]
    tasks = [Task(id=f"t{number}", input=number) for number in range(total)]
    return Evaluation(step=1, tasks=tasks, rollouts=[], rewards=list(rewards))


def judged(after: dict[str, Evaluation], costs: dict[str, Account] | None = None, right: int = 15) -> Any:
    rows = [
        Row(name=name, algorithm=name, comparison=compare(outcomes(right), one), account=(costs or {}).get(name))
        for name, one in after.items()
    ]
    return recommend(corrected(rows), after, alpha=0.05)


def test_the_best_is_recommended_where_it_is_shown_to_be_better_than_the_others() -> None:
    found = judged({"prompt": outcomes(35), "weights": outcomes(55), "same": outcomes(15)})
    assert (found.lever, found.better, found.tied) == ("weights", ["weights", "prompt"], [])
    assert found.reason.startswith("weights: 0.250 → 0.917 on 60 held-out tasks (+0.667, 95 % interval +")
    assert "It is shown to gain more than the others that gained: prompt (p " in found.reason


def test_of_those_that_are_not_shown_to_differ_the_cheapest_is_recommended() -> None:
    after = {"weights": outcomes(52), "prompt": outcomes(50)}
    found = judged(after, {"weights": Account(seconds=600), "prompt": Account(seconds=60)})
    assert (found.lever, found.tied) == ("prompt", ["weights", "prompt"])
    assert "weights (0.867, 10 min 0 s), prompt (0.833, 1 min 0 s) are not shown to differ" in found.reason
    dollars = {"weights": Account(learning=Cost(dollars=0.1)), "prompt": Account(learning=Cost(dollars=2.0))}
    assert judged(after, dollars).lever == "weights"


def test_where_some_dollars_are_unknown_time_decides() -> None:
    costs = {
        "weights": Account(learning=Cost(dollars=5.0), seconds=10),
        "prompt": Account(learning=Cost(dollars=0.1, unpriced=3), seconds=20),
    }
    assert judged({"weights": outcomes(52), "prompt": outcomes(50)}, costs).lever == "weights"


def test_nothing_is_recommended_where_nothing_is_shown_to_be_better() -> None:
    found = judged({"prompt": outcomes(17), "weights": outcomes(15, first=2)})
    assert found.lever is None
    assert found.reason.startswith("Not worth it: no lever is shown to be better than the agent as it is. The most is ")
    assert "that much, at most, was overlooked" in found.reason
    assert judged({"worse": outcomes(2)}).lever is None


def test_one_that_is_no_better_but_cheaper_to_use_is_recommended_for_that() -> None:
    rows = corrected([Row(name="small", algorithm="selection", comparison=compare(outcomes(15), outcomes(15)))])
    rows[0].cheaper = "not worse by more than 0.02, and cheaper to use: 0.1 after 0.3 dollars a task"
    found = recommend(rows, {"small": outcomes(15)}, alpha=0.05)
    assert found.lever == "small"
    assert "0.1 after 0.3 dollars a task" in found.reason


def test_few_held_out_tasks_are_told() -> None:
    after = outcomes(9, total=9)
    row = Row(name="lucky", algorithm="any", comparison=compare(outcomes(0, total=9), after))
    found = recommend(corrected([row]), {"lucky": after}, alpha=0.05)
    assert "Only 9 held-out tasks were compared" in found.reason
