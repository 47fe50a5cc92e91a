"""What is true of each credit whatever the rollouts."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import pytest
from credit.made import Call, advantages, group, member, tool
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentlightning.training_rows import Group

Drawn = list[tuple[list[tuple[int, float | None]], float | None]]
"""Rollouts: of each the state and the step reward of its calls, and its outcome."""

quarters = st.integers(-4, 4).map(lambda number: number / 4)
calls = st.lists(st.tuples(st.integers(0, 2), st.none() | quarters), max_size=4)
rollouts: st.SearchStrategy[Drawn] = st.lists(
    st.one_of(
        st.tuples(calls, quarters),
        st.tuples(calls.filter(lambda made: any(reward is not None for _, reward in made)), st.none()),
    ),
    min_size=1,
    max_size=5,
)

CREDITS: list[str | dict[str, Any]] = [
    "discounted",
    "gigpo",
    {"name": "gigpo", "scale": "none"},
    {"name": "gigpo", "episodes_over": "calls"},
    {"name": "gigpo", "state": "observation"},
    {"name": "gigpo", "state": "node"},
    "hgpo",
    "gagpo",
    {"name": "gagpo", "index_from": "end"},
    "mt_grpo",
    {"name": "per_agent", "of": "gigpo"},
    {"name": "per_agent", "of": "broadcast"},
    "tree",
    "replay",
    {"name": "replay", "scale": "group"},
]
UNDISCOUNTED: list[str | dict[str, Any]] = [
    {"name": "discounted", "gamma": 1.0},
    {"name": "gigpo", "gamma": 1.0},
    {"name": "gigpo", "gamma": 1.0, "scale": "none", "episodes_over": "calls"},
    {"name": "hgpo", "gamma": 1.0},
    {"name": "gagpo", "index_from": "end"},
    "mt_grpo",
    {"name": "per_agent", "of": {"name": "gigpo", "gamma": 1.0}},
    "tree",
    "replay",
]
"""Those to which a reward that all rollouts get more says nothing."""

by_name = pytest.mark.parametrize("choice", CREDITS, ids=str)


def made(drawn: Drawn, *, more: float = 0.0) -> Group:
    """A group of these rollouts; each outcome is so much ``more``. Every second rollout ran a tool after a call."""
    members = []
    for number, (steps, outcome) in enumerate(drawn):
        made_calls = [Call([100 + state], [number], reward, messages=[_said(state)]) for state, reward in steps]
        total = None if outcome is None and not more else (outcome or 0.0) + more
        spans = [tool("search", after=1)] if number % 2 and steps else []
        members.append(member(f"rollout{number}", made_calls, total, spans=spans))
    return group(*members)


def _said(state: int) -> dict[str, Any]:
    return {"role": "user", "content": str(state)}


def close(found: list[list[float]], expected: list[list[float]], *, within: float = 1e-4) -> bool:
    pairs = zip(itertools.chain(*found), itertools.chain(*expected), strict=True)
    return all(math.isclose(one, other, rel_tol=within, abs_tol=within) for one, other in pairs)


@by_name
@settings(max_examples=40)
@given(drawn=rollouts)
def test_every_call_gets_an_advantage(choice: str | dict[str, Any], drawn: Drawn) -> None:
    """`agentlightning.credit.give_credit` ends the step where one has none, or none that is finite."""
    found = advantages(choice, made(drawn), Group(id="empty", task=made(drawn).task, rollouts=[]))
    assert [len(of_rollout) for of_rollout in found] == [len(steps) for steps, _ in drawn]


@by_name
@settings(max_examples=40)
@given(drawn=rollouts, seed=st.integers(0, 99))
def test_the_order_of_rollouts_does_not_matter(choice: str | dict[str, Any], drawn: Drawn, seed: int) -> None:
    one, other = made(drawn), made(drawn)
    random.Random(seed).shuffle(other.rollouts)
    place_of = {member.rollout.id: place for place, member in enumerate(other.rollouts)}
    found = advantages(choice, other)
    assert close([found[place_of[member.rollout.id]] for member in one.rollouts], advantages(choice, one))


@by_name
@settings(max_examples=40)
@given(steps=calls, outcome=quarters, count=st.integers(1, 4))
def test_rollouts_that_earn_the_same_teach_nothing(
    choice: str | dict[str, Any], steps: list[tuple[int, float | None]], outcome: float, count: int
) -> None:
    """Where no state comes twice in a rollout: there the later call has the higher return."""
    distinct = [(place, reward) for place, (_, reward) in enumerate(steps)]
    assert all(abs(value) < 1e-6 for value in itertools.chain(*advantages(choice, made([(distinct, outcome)] * count))))


@pytest.mark.parametrize("choice", UNDISCOUNTED, ids=str)
@settings(max_examples=40)
@given(drawn=rollouts, more=st.sampled_from([-8.0, -0.5, 2.0, 16.0]))
def test_what_all_earn_alike_changes_nothing(choice: str | dict[str, Any], drawn: Drawn, more: float) -> None:
    assume(all(outcome is not None for _, outcome in drawn))
    assert close(advantages(choice, made(drawn, more=more)), advantages(choice, made(drawn)))


@settings(max_examples=40)
@given(drawn=rollouts, eps=st.sampled_from([1e-6, 1e-4, 0.5]))
def test_gigpo_without_states_is_broadcast(drawn: Drawn, eps: float) -> None:
    gigpo = advantages({"name": "gigpo", "omega": 0.0, "eps": eps}, made(drawn))
    assert gigpo == advantages({"name": "broadcast", "eps": eps}, made(drawn))
    gigpo = advantages({"name": "gigpo", "omega": 0.0, "scale": "none"}, made(drawn))
    assert gigpo == advantages({"name": "broadcast", "scale": "none"}, made(drawn))


@settings(max_examples=40)
@given(drawn=rollouts)
def test_one_agents_credit_is_that_of_all_calls(drawn: Drawn) -> None:
    """But for rollouts without a call, which are left out."""
    drawn = [one for one in drawn if one[0]]
    assert advantages({"name": "per_agent", "of": "broadcast"}, made(drawn)) == advantages("broadcast", made(drawn))


@settings(max_examples=40)
@given(drawn=rollouts, history=st.integers(0, 3), alpha=st.sampled_from([0.0, 1.0, 2.5]))
def test_hgpo_is_what_its_definition_says(drawn: Drawn, history: int, alpha: float) -> None:
    found = advantages({"name": "hgpo", "history": history, "alpha": alpha, "gamma": 0.5}, made(drawn))
    assert close(found, brute_force_hgpo(drawn, history, alpha))


def brute_force_hgpo(drawn: Drawn, history: int, alpha: float) -> list[list[float]]:
    """HGPO with γ = 0.5, call by call, from the definition alone."""
    of_call: dict[tuple[int, int], float] = {}
    for i, (steps, outcome) in enumerate(drawn):
        rewards = [reward or 0.0 for _, reward in steps]
        if rewards:
            rewards[-1] += outcome or 0.0
        for t in range(len(rewards)):
            of_call[i, t] = sum(0.5**k * reward for k, reward in enumerate(rewards[t:]))
    found = []
    for i, (steps, _) in enumerate(drawn):
        row = []
        for t in range(len(steps)):
            pairs = []
            for k in range(1, min(history, t) + 2):
                own = [state for state, _ in steps[t - k + 1 : t + 1]]
                peers = [
                    of_call[j, u]
                    for j, u in of_call
                    if u + 1 >= k and [state for state, _ in drawn[j][0][u - k + 1 : u + 1]] == own
                ]
                if len(peers) > 1:
                    score = (of_call[i, t] - statistics.fmean(peers)) / (statistics.pstdev(peers) + 1e-6)
                    pairs.append(((k + 1) ** alpha, score))
            weight = sum(weight for weight, _ in pairs)
            row.append(sum(weight * score for weight, score in pairs) / weight if pairs else 0.0)
        found.append(row)
    return found
