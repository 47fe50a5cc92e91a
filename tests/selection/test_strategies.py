"""Every strategy from end to end: its budget, its winner, ties, models that vanish, and going on after a cut."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from replayed_models import asked, by_kind, gone_after, of_the_models, recorded, train, trainer

from agentlightning.errors import AlgorithmError
from agentlightning.records import Rollout
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
def _undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    asked.clear()
    yield
    gone_after.clear()


class Whole(NamedTuple):
    """A run that nothing disturbed: what came of it, its metrics, its training rollouts and how often it asked."""

    result: Any
    metrics: dict[tuple[int, str], float]
    rollouts: list[Rollout]
    asked: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """The run of a strategy, made once."""

    @functools.cache
    def of(name: str) -> Whole:
        folder = tmp_path_factory.mktemp(name)
        asked.clear()
        result = train(folder, **ALL[name])
        return Whole(result, *recorded(folder, result.run_id), asked.total())

    return of


@pytest.mark.parametrize("name", ALL)
def test_a_budget_is_never_exceeded(whole: Callable[[str], Whole], name: str) -> None:
    """Paired ones use it up but for less than a round's candidates, the others to the last rollout."""
    ran, budget = len(whole(name).rollouts), ALL[name]["budget"]
    assert ran == budget if name in ("thompson", "ucb", "linucb", "nearest") else budget - 3 < ran <= budget


@pytest.mark.parametrize("name", ["racing", "halving"])
def test_candidates_are_compared_on_the_same_tasks(whole: Callable[[str], Whole], name: str) -> None:
    tasks: dict[str, set[str]] = {}
    for rollout in whole(name).rollouts:
        tasks.setdefault(str(rollout.output), set()).add(rollout.task_id)
    most, *others = sorted(tasks.values(), key=len, reverse=True)
    assert all(other <= most for other in others)


@pytest.mark.parametrize("name", ["halving", "thompson", "ucb"])
def test_the_worst_model_is_not_chosen_and_asked_least(whole: Callable[[str], Whole], name: str) -> None:
    times = Counter(str(rollout.output) for rollout in whole(name).rollouts)
    assert whole(name).result.results["model"] in ("large", "medium")
    assert min(times, key=lambda model: times[model]) == "small"


@pytest.mark.parametrize("name", ["halving", "thompson", "nearest", "linucb"])
def test_a_model_that_vanishes_is_dropped_with_its_reason_and_the_run_goes_on(tmp_path: Path, name: str) -> None:
    gone_after["medium"] = 12
    result = train(tmp_path, **ALL[name])
    assert "5 × not_found: there is no medium" in result.results["medium out"]
    assert result.results["model"] != "medium"
    _, ran = recorded(tmp_path, result.run_id)
    assert len(ran) <= ALL[name]["budget"]
    assert ran[-1].output != "medium"


@pytest.mark.parametrize("name", ["linucb"])
def test_when_all_have_vanished_the_run_ends_and_says_why(tmp_path: Path, name: str) -> None:
    gone_after.update(large=40, medium=20, small=20)
    with pytest.raises(AlgorithmError, match=r"every candidate is gone after .* there is no large"):
        train(tmp_path, **ALL[name])


@pytest.mark.parametrize("name", ["thompson", "nearest", "linucb"])
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(
    tmp_path: Path, whole: Callable[[str], Whole], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, collect, looks = whole(name), Contest.collect, iter(range(1000))

    async def cut_off_at_the_fourth(contest: Contest, *arguments: Any, **options: Any) -> Any:
        if next(looks) == 3:
            raise KeyboardInterrupt
        return await collect(contest, *arguments, **options)

    asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Contest, "collect", cut_off_at_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, **ALL[name])
    again = trainer(tmp_path, **ALL[name]).fit(resume=True)
    assert of_the_models(again) == of_the_models(undisturbed.result)
    assert asked.total() <= undisturbed.asked + 1, "nothing is run twice, but for the check"


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
    assert metrics[1, "seconds/slow"] > max(0.02, metrics[1, "seconds/medium"])


def test_traffic_logs_its_regret(whole: Callable[[str], Whole]) -> None:
    """An estimate: what the best mean so far would have given, less what was given."""
    _, metrics, ran, _ = whole("thompson")
    means = [value for (step, name), value in metrics.items() if step == 9 and name.startswith("mean/")]
    given = sum(rollout.outcome or 0.0 for rollout in ran)
    assert metrics[9, "given"] == pytest.approx(given)
    assert metrics[9, "regret"] == pytest.approx(max(means) * len(ran) - given)


@pytest.mark.parametrize("name", ["racing", "halving", "thompson", "nearest"])
def test_every_strategy_draws_its_front(whole: Callable[[str], Whole], name: str) -> None:
    table = Path(whole(name).result.results["front table"]).read_text().splitlines()
    assert table[0] == "tasks,name,price,dollars,outcome,seconds,count,on_front"
    assert {line.split(",")[1] for line in table[1:]} >= {"large", "medium", "small"}


def test_the_seed_decides_what_thompson_draws(tmp_path: Path, whole: Callable[[str], Whole]) -> None:
    def drawn(ran: list[Rollout]) -> list[Any]:
        return [rollout.output for rollout in sorted(ran, key=lambda one: (one.step, one.collection))]

    same, other = (train(tmp_path / str(seed), seed=seed, **THOMPSON).run_id for seed in (0, 1))
    first = drawn(whole("thompson").rollouts)
    assert drawn(recorded(tmp_path / "0", same)[1]) == first
    assert drawn(recorded(tmp_path / "1", other)[1]) != first
