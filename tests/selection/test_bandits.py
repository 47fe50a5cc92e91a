"""Thompson sampling and confidence bounds, simulated: what they lose against the best arm, and how they follow
change."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agentlightning_selection.bandits import UCB, Bandit, Thompson
from agentlightning_selection.config import Candidate, ThompsonConfig, UCBConfig

ARMS = [Candidate(model="a"), Candidate(model="b")]
Rates = Callable[[int], np.ndarray]


def thompson(arms: int = 3, **options: object) -> Thompson:
    return Thompson(arms, ThompsonConfig(strategy="thompson", candidates=ARMS, **options))  # type: ignore[arg-type]


def ucb(arms: int = 3, **options: object) -> UCB:
    return UCB(arms, UCBConfig(strategy="ucb", candidates=ARMS, **options))  # type: ignore[arg-type]


def played(bandit: Bandit, rates: Rates, *, decisions: int, seed: int, batch: int = 1) -> np.ndarray:
    """The arms (T,) that it took."""
    rng, chosen = np.random.default_rng(seed), []
    for start in range(0, decisions, batch):
        pending = np.zeros(len(bandit.counts))
        arms = []
        for _ in range(batch):
            arm = bandit.choose(range(len(pending)), pending, rng)
            pending[arm] += 1
            arms.append(arm)
        for offset, arm in enumerate(arms):
            bandit.update(arm, float(rng.random() < rates(start + offset)[arm]))
        chosen += arms
    return np.array(chosen)


def regret(arms: np.ndarray, rates: Rates) -> float:
    return float(sum(rates(at).max() - rates(at)[arm] for at, arm in enumerate(arms)))


def steady(at: int) -> np.ndarray:
    return np.array([0.2, 0.5, 0.7])


def switching(at: int) -> np.ndarray:
    return np.array([0.9, 0.1, 0.1]) if at < 600 else np.array([0.1, 0.9, 0.1])


@pytest.mark.parametrize("options", [{}, {"posterior": "beta"}], ids=["gaussian", "beta"])
def test_thompson_loses_far_less_than_chance(options: dict[str, str]) -> None:
    """Chance loses 0.233 a decision, 233 over these."""
    lost = [regret(played(thompson(**options), steady, decisions=1000, seed=seed), steady) for seed in range(5)]
    assert np.mean(lost) < 25
    assert max(lost) < 60


def test_ucb_loses_far_less_than_chance() -> None:
    lost = [regret(played(ucb(), steady, decisions=1000, seed=seed), steady) for seed in range(4)]
    assert max(lost) < 90


def test_regret_grows_ever_more_slowly() -> None:
    arms = np.stack([played(thompson(), steady, decisions=1500, seed=seed) for seed in range(5)])
    missed = (arms != 2).mean(axis=0)
    assert missed[:200].mean() > 4 * missed[1000:].mean()


@pytest.mark.parametrize(("make", "options"), [(thompson, {}), (ucb, {"exploration": 0.05})], ids=["thompson", "ucb"])
def test_a_discount_follows_traffic_that_changes(make: Callable[..., Bandit], options: dict[str, float]) -> None:
    """The best arm becomes the worst: with a memory of 100 decisions the new one is found the sooner."""
    lost = {
        discount: np.mean(
            [
                regret(played(make(discount=discount, **options), switching, decisions=1200, seed=seed), switching)
                for seed in range(3)
            ]
        )
        for discount in (1.0, 0.99)
    }
    assert lost[0.99] < 0.6 * lost[1.0]


@pytest.mark.parametrize("make", [thompson, ucb])
def test_decisions_that_are_made_at_once_are_spread_while_nothing_is_known(make: Callable[..., Bandit]) -> None:
    bandit, pending, rng = make(), np.zeros(3), np.random.default_rng(0)
    arms = []
    for _ in range(12):
        arm = bandit.choose(range(3), pending, rng)
        pending[arm] += 1
        arms.append(arm)
    assert set(arms) == {0, 1, 2}


def test_batches_cost_little() -> None:
    alone = np.mean([regret(played(ucb(), steady, decisions=960, seed=seed), steady) for seed in range(3)])
    batched = np.mean([regret(played(ucb(), steady, decisions=960, seed=seed, batch=16), steady) for seed in range(3)])
    assert batched < alone + 16


def test_ucb_takes_every_arm_once_before_any_twice() -> None:
    assert sorted(played(ucb(5), lambda _: np.full(5, 0.5), decisions=5, seed=0)) == [0, 1, 2, 3, 4]


def test_ucbs_bound_is_that_of_ucb1() -> None:
    """B √(2 ln n / N) above the mean: after 9 rewards of 0.5 and one of 1, arm 0's bound is the greater one."""
    bandit = ucb(2)
    for _ in range(9):
        bandit.update(0, 0.5)
    bandit.update(1, 1.0)
    assert bandit._bound(0, bandit.counts) == pytest.approx(0.5 + np.sqrt(2 * np.log(10) / 9))
    assert bandit._bound(1, bandit.counts) == pytest.approx(1.0 + np.sqrt(2 * np.log(10) / 1))


def test_only_what_is_allowed_is_chosen() -> None:
    for bandit in (thompson(), ucb()):
        assert {bandit.choose([1], np.zeros(3), np.random.default_rng(seed)) for seed in range(5)} == {1}


def test_a_reward_that_a_beta_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="choose the posterior gaussian"):
        thompson(posterior="beta").update(0, 1.5)


def test_the_best_arm_is_told_from_the_worst_and_two_equal_ones_are_not() -> None:
    bandit, rng = thompson(3), np.random.default_rng(1)
    for _ in range(300):
        for arm, rate in enumerate((0.7, 0.7, 0.3)):
            bandit.update(arm, float(rng.random() < rate))
    assert bandit.p_better(0, 2) < 1e-6
    assert 0.05 < bandit.p_better(0, 1) < 0.95
