"""Every strategy from end to end: its budget, its winner, ties, models that vanish, and going on after a cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replayed_models import asked, by_kind, gone_after, of_the_models, recorded, train, trainer

from agentlightning.errors import AlgorithmError
from agentlightning_selection.contest import Contest

HALVING: dict[str, Any] = {"strategy": "successive_halving", "budget": 200}
THOMPSON: dict[str, Any] = {"strategy": "thompson", "budget": 90, "batch": 10}
UCB: dict[str, Any] = {"strategy": "ucb", "budget": 90, "batch": 10}
KINDS: dict[str, Any] = {"strategy": "contextual", "features": "replayed_models:features", "reward": by_kind}
NEAREST = {**KINDS, "budget": 201}
LINUCB: dict[str, Any] = {**KINDS, "learner": "linucb", "budget": 100, "batch": 10}
RACING: dict[str, Any] = {"budget": 200, "confidence": 0.99999}
ALL = {
    "racing": RACING,
    "halving": HALVING,
    "thompson": THOMPSON,
    "ucb": UCB,
    "nearest": NEAREST,
    "linucb": LINUCB,
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    asked.clear()
    yield
    gone_after.clear()


@pytest.mark.parametrize("name", ALL)
def test_a_budget_is_never_exceeded(tmp_path: Path, name: str) -> None:
    """Paired ones use it up but for less than a round's candidates, the others to the last rollout."""
    options = ALL[name]
    _, ran = recorded(tmp_path, train(tmp_path, **options).run_id)
    budget = options["budget"]
    assert len(ran) == budget if name in ("thompson", "ucb", "linucb", "nearest") else budget - 3 < len(ran) <= budget


@pytest.mark.parametrize("name", ["racing", "halving"])
def test_candidates_are_compared_on_the_same_tasks(tmp_path: Path, name: str) -> None:
    _, ran = recorded(tmp_path, train(tmp_path, **ALL[name]).run_id)
    tasks: dict[str, set[str]] = {}
    for rollout in ran:
        tasks.setdefault(str(rollout.output), set()).add(rollout.task_id)
    most, *others = sorted(tasks.values(), key=len, reverse=True)
    assert all(other <= most for other in others)


@pytest.mark.parametrize("name", ["halving", "thompson", "ucb"])
def test_the_worst_model_is_not_chosen_and_asked_least(tmp_path: Path, name: str) -> None:
    result = train(tmp_path, **ALL[name])
    assert result.results["model"] in ("large", "medium")
    assert min(asked, key=lambda model: asked[model]) == "small"


@pytest.mark.parametrize("name", ALL)
def test_a_model_that_vanishes_is_dropped_with_its_reason_and_the_run_goes_on(tmp_path: Path, name: str) -> None:
    gone_after["medium"] = 12
    result = train(tmp_path, **ALL[name])
    assert "5 × not_found: there is no medium" in result.results["medium out"]
    assert result.results["model"] != "medium"
    _, ran = recorded(tmp_path, result.run_id)
    assert len(ran) <= ALL[name]["budget"]
    assert ran[-1].output != "medium"


@pytest.mark.parametrize("name", ["racing", "thompson", "linucb"])
def test_when_all_have_vanished_the_run_ends_and_says_why(tmp_path: Path, name: str) -> None:
    gone_after.update(large=40, medium=20, small=20)
    with pytest.raises(AlgorithmError, match=r"every candidate is gone after .* there is no large"):
        train(tmp_path, **ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", **ALL[name])
    before = Counter(asked)
    collect, looks = Contest.collect, iter(range(1000))

    async def cut_off_at_the_fourth(contest: Contest, *arguments: Any, **options: Any) -> Any:
        if next(looks) == 3:
            raise KeyboardInterrupt
        return await collect(contest, *arguments, **options)

    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Contest, "collect", cut_off_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", **ALL[name])
    again = trainer(tmp_path / "cut", **ALL[name]).fit(resume=True)
    assert of_the_models(again) == of_the_models(whole)
    assert asked.total() <= before.total() + 1, "nothing is run twice, but for the check"


def test_a_tie_is_called_one_and_the_cheaper_model_published(tmp_path: Path) -> None:
    result = train(tmp_path, candidates=[{"model": "large", "input_price": 1.0}, {"model": "medium"}], count=60)
    assert result.results["model"] == "medium"
    assert result.results["tie"].startswith("large and medium tie (+0.0")
    assert result.results["tie"].endswith("medium is the cheapest of them, at 0 dollars a rollout")


def test_a_tie_of_live_traffic_is_called_one(tmp_path: Path) -> None:
    same = [{"model": "large", "input_price": 1.0}, {"model": "medium"}]
    result = train(tmp_path, strategy="ucb", batch=10, candidates=same)
    assert result.results["model"] == "medium"
    assert "large and medium tie" in result.results["tie"] or "medium and large tie" in result.results["tie"]


def test_the_fastest_model_that_is_good_enough_is_published(tmp_path: Path) -> None:
    def score(rollout: Any, task: Any) -> float:
        return 1.0

    slow = [{"model": "slow"}, {"model": "medium", "input_price": 1.0}]
    result = train(tmp_path, candidates=slow, reward=score, objective="fastest", count=60, margin=0.2)
    assert result.results["model"] == "medium"
    metrics, _ = recorded(tmp_path, result.run_id)
    assert metrics[1, "seconds/slow"] > 0.02 > metrics[1, "seconds/medium"]


def test_traffic_logs_its_regret(tmp_path: Path) -> None:
    """An estimate: what the best mean so far would have given, less what was given."""
    metrics, ran = recorded(tmp_path, train(tmp_path, **THOMPSON).run_id)
    means = [value for (step, name), value in metrics.items() if step == 9 and name.startswith("mean/")]
    given = sum(rollout.outcome or 0.0 for rollout in ran)
    assert metrics[9, "given"] == pytest.approx(given)
    assert metrics[9, "regret"] == pytest.approx(max(means) * len(ran) - given)


def test_every_strategy_draws_its_front(tmp_path: Path) -> None:
    result = train(tmp_path, **HALVING)
    table = Path(result.results["front table"]).read_text().splitlines()
    assert table[0] == "tasks,name,price,dollars,outcome,seconds,count,on_front"
    assert {line.split(",")[1] for line in table[1:]} == {"large", "medium", "small"}


def test_the_seed_decides_what_thompson_draws(tmp_path: Path) -> None:
    order = []
    for place, seed in enumerate((0, 0, 1)):
        _, ran = recorded(tmp_path / str(place), train(tmp_path / str(place), seed=seed, **THOMPSON).run_id)
        order.append([rollout.output for rollout in sorted(ran, key=lambda one: (one.step, one.collection))])
    assert order[0] == order[1] != order[2]
