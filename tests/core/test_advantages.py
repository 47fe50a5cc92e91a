"""Advantages: every project's form, over rollouts and never over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agentlightning.advantages import AdvantageConfig, advantages, advantages_by_component
from agentlightning_grpo.presets import PRESETS

REWARDS = np.array([1.0, 0.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("trl-1.16/grpo", 1.30531), ("verl-0.9/grpo", 1.30558), ("art-0.5/cispo", 1.50755), ("trl-1.16/dr_grpo", 0.625)],
)
def test_the_first_advantage_of_each_project(preset: str, expected: float) -> None:
    assert advantages([REWARDS], PRESETS[preset].advantage)[0][0] == pytest.approx(expected, abs=5e-6)


def test_rloo_compares_with_the_mean_of_the_others() -> None:
    others = [REWARDS[np.arange(4) != place].mean() for place in range(4)]
    got = advantages([REWARDS], PRESETS["verl-0.9/rloo"].advantage)[0]
    np.testing.assert_allclose(got, REWARDS - others)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_group_of_one_or_without_spread_gives_exactly_zero(preset: str) -> None:
    config = PRESETS[preset].advantage
    for group in ([0.7], [0.1, 0.1, 0.1], []):
        assert not advantages([np.array(group), REWARDS], config)[0].any()


def test_the_statistic_is_over_rollouts() -> None:
    """A rollout of three rows with reward 1 and one of one row with reward 0: ±0.7071, and ±0.5 unscaled."""
    rollouts = [np.array([1.0, 0.0])]
    np.testing.assert_allclose(
        advantages(rollouts, PRESETS["trl-1.16/grpo"].advantage)[0], [0.7071, -0.7071], atol=1e-4
    )
    np.testing.assert_allclose(advantages(rollouts, PRESETS["trl-1.16/dr_grpo"].advantage)[0], [0.5, -0.5])


def test_batch_scale_takes_each_groups_mean_and_the_batchs_deviation() -> None:
    first, second = np.array([1.0, 0.0]), np.array([0.4, 0.2])
    got = advantages([first, second], AdvantageConfig(scale="batch", eps=0.0))
    deviation = np.concatenate([first, second]).std(ddof=1)
    np.testing.assert_allclose(got[0], [0.5 / deviation, -0.5 / deviation])
    np.testing.assert_allclose(got[1], [0.1 / deviation, -0.1 / deviation])


def test_normalize_then_sum_gives_every_component_the_same_say() -> None:
    """A component a hundred times larger does not drown the other, and weights count after scaling."""
    group = np.array([[1.0, 0.0], [0.0, 100.0], [1.0, 100.0], [0.0, 0.0]])
    config = AdvantageConfig(normalize_then_sum=True, eps=0.0)
    even = advantages_by_component([group], np.array([1.0, 1.0]), config)[0]
    np.testing.assert_allclose(even, [0, 0, np.sqrt(1.5), -np.sqrt(1.5)], atol=1e-12)
    first = advantages_by_component([group], np.array([1.0, 0.0]), config)[0]
    np.testing.assert_allclose(np.sign(first), [1, -1, 1, -1])


def test_normalize_then_sum_leaves_a_missing_component_out() -> None:
    group = np.array([[1.0, np.nan], [0.0, 2.0], [0.5, 1.0]])
    got = advantages_by_component([group], np.array([1.0, 1.0]), AdvantageConfig(normalize_then_sum=True))[0]
    assert np.isfinite(got).all()
    assert got[0] > got[2]


def test_normalize_then_sum_gives_zero_without_spread() -> None:
    flat, spread = np.array([[0.1, 3.0]] * 3), np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    config = AdvantageConfig(normalize_then_sum=True)
    got = advantages_by_component([flat, spread, np.ones((1, 2))], np.array([1.0, 0.3]), config)
    assert not got[0].any()
    assert got[1].any()
    assert not got[2].any()


BASES: list[dict[str, Any]] = [{}, {"scale": "none"}, {"scale": "batch"}, {"normalize_then_sum": True}]
OTHER: dict[str, Any] = {
    "baseline": "leave_one_out",
    "scale": "batch",
    "ddof": 0,
    "eps": 0.5,
    "normalize_then_sum": True,
}


@pytest.mark.parametrize("base", BASES, ids=str)
@pytest.mark.parametrize("name", AdvantageConfig.__struct_fields__)
def test_a_field_of_an_advantage_changes_it_or_is_said_to_have_no_effect(base: dict[str, Any], name: str) -> None:
    other = OTHER[name] if base.get(name) != OTHER[name] else {"batch": "group", True: False}[OTHER[name]]
    changed = {**base, name: other}
    same = np.array_equal(*(given_by(AdvantageConfig(**fields)) for fields in (base, changed)))
    assert same == (name in AdvantageConfig(**changed).without_effect())


def given_by(config: AdvantageConfig) -> np.ndarray:
    """The advantages of two drawn groups, whose rewards have two components."""
    components = list(np.random.default_rng(0).normal(size=(2, 4, 2)) * [1.0, 50.0])
    if config.normalize_then_sum:
        return np.concatenate(advantages_by_component(components, np.array([1.0, 0.5]), config))
    return np.concatenate(advantages([table @ [1.0, 0.5] for table in components], config))
