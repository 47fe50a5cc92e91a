"""Credit within the calls of one agent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest
from credit.made import Call, advantages, group, member, numbers

from agentlightning.credit import Branch, BranchPoint, Broadcast, Credit, load_credit
from agentlightning.errors import ConfigError, PluginError
from agentlightning.training_rows import Group, RolloutRows


def two_agents() -> Group:
    """The critic is asked in two of three rollouts, which are those that go badly."""
    return group(
        member("a", [Call([1], agent="writer")], 1.0),
        member("b", [Call([1], agent="writer"), Call([2], agent="critic"), Call([3], agent="writer")], 0.4),
        member("c", [Call([1], agent="writer"), Call([2], agent="critic")], 0.0),
    )


def test_an_agent_is_compared_with_itself_alone() -> None:
    found = advantages({"name": "per_agent", "of": {"name": "broadcast", "scale": "none"}}, two_agents())
    mean = 1.4 / 3
    assert found[0] == pytest.approx([1 - mean], abs=1e-6)
    assert found[1] == pytest.approx([0.4 - mean, 0.2, 0.4 - mean], abs=1e-6)
    assert found[2] == pytest.approx([-mean, -0.2], abs=1e-6)


def test_the_outcome_is_with_the_last_call_of_each_agent() -> None:
    """γ = 0: only the last calls have a return, and each agent's are compared by index."""
    choice = {"name": "per_agent", "of": {"name": "discounted", "gamma": 0.0, "scale": "none"}}
    found = advantages(choice, two_agents())
    mean = (1.0 + 0.0 + 0.0) / 3
    assert found[0] == pytest.approx([1 - mean], abs=1e-6)
    assert found[1] == pytest.approx([-mean, 0.2, 0.0], abs=1e-6)
    assert found[2] == pytest.approx([-mean, -0.2], abs=1e-6)


def test_calls_without_an_agents_name_are_one_agents() -> None:
    one = group(member("a", [Call([1])], 1.0), member("b", [Call([1]), Call([2], agent="critic")], 0.0))
    assert advantages({"name": "per_agent", "of": "broadcast"}, one)[1][1] == 0.0


def test_numbers_for_the_log_are_told_by_agent() -> None:
    choice = {"name": "per_agent", "of": "gigpo"}
    assert numbers(choice, two_agents()) == {
        "writer/credit_calls_with_peer": 3 / 4,
        "critic/credit_calls_with_peer": 1.0,
    }
    assert numbers(choice, group(member("a", [Call([1])], 1.0), member("b", [Call([1])], 0.0))) == {
        "credit_calls_with_peer": 1.0
    }


def test_each_agent_is_warned_of_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    one = group(*(member(name, [Call([place], agent=name)], 1.0) for place, name in enumerate("ab")))
    with caplog.at_level(logging.WARNING):
        numbers({"name": "per_agent", "of": "gigpo"}, one)
    assert len(caplog.records) == 2


class Adds(Broadcast):
    """A credit that has each rollout it sees run again, and adds those to their group."""

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        for one in groups:
            for found in await branch([BranchPoint(each.rollout, 1) for each in one.rollouts], count=1):
                one.rollouts += found


async def test_rollouts_that_an_agents_credit_adds_are_their_groups() -> None:
    asked: list[list[BranchPoint]] = []

    async def branch(points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
        asked.append(list(points))
        again = [Call([1], agent="writer"), Call([2], agent="critic")]
        return [[member(f"{one.rollout.id}+{len(asked)}", again, 0.8, purpose="branch")] for one in points]

    one = two_agents()
    credit = load_credit({"name": "per_agent", "of": f"{__name__}:Adds"})
    await credit.explore([one], branch)
    assert [len(points) for points in asked] == [2, 5]
    assert [len(of_rollout.rows) for of_rollout in one.rollouts] == [1, 3, 2, *[2] * 7]
    assert all(advantages(credit, one))


class Counts(Credit):
    """A credit that remembers which groups it explored."""

    def __init__(self, config: object) -> None:
        super().__init__(config)
        self.explored: list[int] = []

    async def explore(self, groups: Sequence[Group], branch: Branch) -> None:
        self.explored = [len(one.rollouts) for one in groups]

    def assign(self, groups: Sequence[Group]) -> Mapping[str, float]:
        for one in groups:
            for of_rollout in one.rollouts:
                of_rollout.set_advantage(0.0)
        return {"explored": float(sum(self.explored)), "assigned": float(sum(len(one.rollouts) for one in groups))}


async def test_what_an_agents_credit_explored_is_there_when_it_assigns() -> None:
    async def branch(points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
        raise NotImplementedError

    credit = load_credit({"name": "per_agent", "of": f"{__name__}:Counts"})
    await credit.explore([two_agents()], branch)
    found = numbers(credit, two_agents())
    assert found == {"writer/explored": 3, "writer/assigned": 3, "critic/explored": 2, "critic/assigned": 2}


@pytest.mark.parametrize(
    ("of", "error", "message"),
    [
        ("gigpoo", PluginError, "credit 'gigpoo' is not installed; did you mean 'gigpo'"),
        ({"name": "gigpo", "omga": 1}, ConfigError, "algorithm.credit.of.omga: unknown key; did you mean omega?"),
        ({"name": "gigpo", "omega": -1}, ConfigError, "algorithm.credit.of.omega: expected float >= 0"),
        ({"omega": 1}, ConfigError, "algorithm.credit.of.name: missing"),
        ({"name": "per_agent", "of": "gigpo"}, ConfigError, "algorithm.credit.of.name: per_agent within per_agent"),
    ],
)
def test_a_credit_that_is_none_is_refused(of: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_credit({"name": "per_agent", "of": of})


def test_it_needs_another_credit() -> None:
    with pytest.raises(ConfigError, match=r"^algorithm\.credit\.of: missing"):
        load_credit("per_agent")
