"""On small decision processes, solved exactly: a potential leaves the best policy the best, a bonus need not.

P (S, A, S) are the probabilities of the next state, R (S, A, S) the rewards; the last state is the end.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlightning_intermediate.shaping import shaped

GAMMAS = st.just(1.0) | st.floats(0.3, 1.0)


def action_values(probabilities: np.ndarray, rewards: np.ndarray, gamma: float) -> np.ndarray:
    """Q (S, A) of the best policy, by value iteration."""
    values = np.zeros(len(probabilities))
    expected = (probabilities * rewards).sum(axis=2)
    for _ in range(10_000):
        q: np.ndarray = expected + gamma * probabilities @ values
        if np.abs(q.max(axis=1) - values).max() < 1e-12:
            return q
        values = q.max(axis=1)
    raise AssertionError("value iteration did not come to rest")


def with_potential(rewards: np.ndarray, potential: np.ndarray, gamma: float) -> np.ndarray:
    """R + F, of the potential (S,) of each state."""
    states = range(len(potential))
    return rewards + np.array([[[shaped(potential[s], potential[t], gamma) for t in states]] for s in states])


def random_process(seed: int, states: int = 5, actions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Every action ends it with a probability of at least 0.2."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(states), (states, actions)) * 0.8
    probabilities[:, :, -1] += 0.2
    probabilities[-1] = np.eye(states)[-1]
    rewards = rng.normal(size=(states, actions, states))
    rewards[-1] = 0.0
    return probabilities, rewards


@given(st.integers(0, 2**32 - 1), GAMMAS, st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_any_potential_leaves_the_best_policy_the_best(seed: int, gamma: float, drawn: list[float]) -> None:
    probabilities, rewards = random_process(seed)
    potential = np.array([*drawn, 0.0])
    plain = action_values(probabilities, rewards, gamma)
    changed = action_values(probabilities, with_potential(rewards, potential, gamma), gamma)

    np.testing.assert_allclose(changed, plain - potential[:, None], atol=1e-8)
    best_two = np.sort(plain[:-1], axis=1)[:, -2:]
    is_clear = best_two[:, 1] - best_two[:, 0] > 1e-6
    assert (changed.argmax(axis=1) == plain.argmax(axis=1))[:-1][is_clear].all()


TRY, GUESS = 0, 1
START, FAILED, END = 0, 1, 2


def agent_with_a_tool() -> tuple[np.ndarray, np.ndarray]:
    """To try a tool fails the first time, says why, and leads to the right answer, worth 1; to guess is worth 0.95."""
    probabilities, rewards = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    probabilities[START, TRY, FAILED] = probabilities[FAILED, TRY, END] = 1.0
    probabilities[:2, GUESS, END] = 1.0
    probabilities[END, :, END] = 1.0
    rewards[FAILED, TRY, END] = 1.0
    rewards[:2, GUESS, END] = 0.95
    return probabilities, rewards


def test_a_penalty_for_failed_tools_teaches_an_agent_to_guess_and_a_potential_does_not() -> None:
    probabilities, rewards = agent_with_a_tool()
    bonus = rewards.copy()
    bonus[START, TRY, FAILED] += -0.1
    potential = with_potential(rewards, np.array([0.0, -0.1, 0.0]), 1.0)

    best = [int(action_values(probabilities, tried, 1.0)[START].argmax()) for tried in (rewards, bonus, potential)]
    assert best == [TRY, GUESS, TRY]


def test_a_bonus_is_collected_forever_and_a_potential_cannot_be() -> None:
    """To ask again is worth 0.2 and changes nothing; to answer is worth 1, and ends it."""
    again, answer, gamma = 0, 1, 0.9
    probabilities, rewards = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    probabilities[:2, again, 1] = probabilities[:, answer, 2] = probabilities[2, :, 2] = 1.0
    rewards[:2, answer, 2] = 1.0
    bonus = rewards.copy()
    bonus[:2, again, 1] += 0.2
    potential = with_potential(rewards, np.array([0.0, 0.2, 0.0]), gamma)

    values = [action_values(probabilities, tried, gamma)[:2] for tried in (rewards, bonus, potential)]
    assert [of_one.argmax(axis=1).tolist() for of_one in values] == [[answer] * 2, [again] * 2, [answer] * 2]


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_a_wrong_discount_is_no_potential(gamma: float) -> None:
    """The README says that gamma must be the credit's; with another, values do not differ by the potential alone."""
    probabilities, rewards = random_process(0)
    potential = np.array([1.0, -2.0, 3.0, 0.5, 0.0])
    plain = action_values(probabilities, rewards, gamma)
    changed = action_values(probabilities, with_potential(rewards, potential, 0.75), gamma)

    assert np.abs(changed - (plain - potential[:, None])).max() > 0.1
