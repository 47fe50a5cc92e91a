"""LinUCB against the reference values of MABWiser, which `mabwiser_linucb` makes; and what it learns."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentlightning_selection.linucb import LinUCB

HERE = Path(__file__).parent
REFERENCE: list[dict[str, Any]] = json.loads((HERE / "mabwiser_linucb.json").read_text())


def history() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """That of the reference's own script."""
    specification = importlib.util.spec_from_file_location("mabwiser_linucb", HERE / "mabwiser_linucb.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    arms, rewards, contexts, asked = module.history()
    return arms, rewards, contexts, asked


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: f"alpha {case['alpha']}")
def test_bounds_and_choices_are_those_of_mabwiser(case: dict[str, Any]) -> None:
    arms, rewards, contexts, asked = history()
    linear = LinUCB(3, 4, alpha=case["alpha"], regularisation=case["l2_lambda"])
    for arm, reward, context in zip(arms, rewards, contexts, strict=True):
        linear.update(int(arm), context, float(reward))
    assert [linear.bounds(context) for context in asked] == pytest.approx(np.array(case["bounds"]), abs=1e-9)
    assert [linear.choose(context, range(3), np.zeros(3)) for context in asked] == case["arms"]


def test_it_finds_the_arm_of_each_context() -> None:
    """Two kinds of tasks, each with a best arm of its own: regret ends to grow."""
    rng, linear = np.random.default_rng(0), LinUCB(3, 3, alpha=1.0, regularisation=1.0)
    good = np.array([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])
    regret = []
    for _ in range(800):
        kind = int(rng.integers(2))
        context = np.array([1.0, kind, 1 - kind])
        arm = linear.choose(context, range(3), np.zeros(3))
        linear.update(arm, context, float(rng.random() < good[kind, arm]))
        regret.append(good[kind].max() - good[kind, arm])
    assert sum(regret[:400]) < 40
    assert sum(regret[400:]) < 4


def test_a_penalty_is_weighed_against_reward() -> None:
    linear = LinUCB(2, 1, alpha=0.0, regularisation=1.0)
    context = np.ones(1)
    for _ in range(50):
        linear.update(0, context, 1.0)
        linear.update(1, context, 0.8)
    assert linear.choose(context, range(2), np.zeros(2)) == 0
    assert linear.choose(context, range(2), np.array([0.3, 0.0])) == 1
    assert linear.choose(context, [0], np.array([0.3, 0.0])) == 0
