"""Every credit on a group that can be computed by hand: three rollouts of one task, γ = 0.9, ε = 1e-6."""

from __future__ import annotations

from typing import Any

import pytest
from credit.made import Call, advantages, group, member, numbers, states, three_rollouts, tool

GAMMA = {"gamma": 0.9}
NOTHING = [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (
            {"name": "gigpo", "scale": "none", **GAMMA},
            [[0.573333, 0.783333, 0.333333], [-1.236667, -1.116667, -0.666667], [0.663333, 0.333333]],
        ),
        (
            {"name": "gigpo", "scale": "none", "episodes_over": "calls", **GAMMA},
            [[0.615, 0.825, 0.375], [-1.195, -1.075, -0.625], [0.705, 0.375]],
        ),
        (
            {"name": "gigpo", **GAMMA},
            [[1.061530, 1.284455, 0.577349], [-2.304629, -1.861804, -1.154699], [1.243098, 0.577349]],
        ),
        (
            {"name": "hgpo", "history": 1, **GAMMA},
            [[0.592998, 0.999998, 0.0], [-1.408370, -0.999998, 0.0], [0.815372, 0.0]],
        ),
        (
            "gagpo",
            [[0.352275, 0.377008, 0.538675], [-0.772949, -0.849016, -0.827349], [0.420675, 0.472008]],
        ),
        (
            {"name": "discounted", "scale": "none", **GAMMA},
            [[0.24, 0.9 - 1.9 / 3, 0.5], [-0.57, -1.9 / 3, -0.5], [0.33, 1 - 1.9 / 3]],
        ),
    ],
    ids=["gigpo, mean", "gigpo, mean, over calls", "gigpo, z", "hgpo", "gagpo", "discounted, mean"],
)
def test_golden_values(choice: str | dict[str, Any], expected: list[list[float]]) -> None:
    found = advantages(choice, three_rollouts())
    assert [len(of_rollout) for of_rollout in found] == [3, 3, 2]
    for given, wanted in zip(found, expected, strict=True):
        assert given == pytest.approx(wanted, abs=1e-6)


def test_golden_values_of_a_tree() -> None:
    """Two pairs that begin alike, with the outcomes 1, 0 and 1, 1."""
    first, second = Call(prompt=[1], answer=[2]), Call(prompt=[1], answer=[3])
    one = group(
        member("a", [first, Call(prompt=[1, 2, 5], answer=[6])], 1.0),
        member("b", [first, Call(prompt=[1, 2, 5], answer=[7])], 0.0),
        member("c", [second, Call(prompt=[1, 3, 5], answer=[6])], 1.0),
        member("d", [second, Call(prompt=[1, 3, 5], answer=[7])], 1.0),
    )
    found = advantages("tree", one)
    expected = [1.207105, -2.207103, 0.499999, 0.499999]
    for given, wanted in zip(found, expected, strict=True):
        assert given == pytest.approx([wanted, wanted], abs=1e-6)


def test_gagpo_from_the_end_compares_last_calls_with_last_calls() -> None:
    """V is 2/3 for the last calls, 1.8/3 for those before, 0.81/2 for those before these."""
    found = advantages({"name": "gagpo", "index_from": "end"}, three_rollouts())
    last, before, first = 2 / 3, 0.6, 0.405
    errors = [0.9 * before - first, 0.9 * last - before, 1 - last]
    returns = [errors[0] + 0.72 * (errors[1] + 0.72 * errors[2]), errors[1] + 0.72 * errors[2], errors[2]]
    score = 1 / 3 / (3**-0.5 + 1e-6)
    assert found[0] == pytest.approx([(score + value) / 2 for value in returns], abs=1e-6)
    assert found[2] == pytest.approx([(score + value) / 2 for value in returns[1:]], abs=1e-6)


def test_step_rewards_of_mt_grpo_are_for_what_was_written_before_the_tools_result() -> None:
    """Turn rewards 1, 0, 1 and outcomes 1, 0, 0; the third ran no tool."""
    called = [Call(prompt=[1], reward=1.0), Call(prompt=[2])]
    not_called = [Call(prompt=[1], reward=0.0), Call(prompt=[2])]
    one = group(
        member("a", called, 1.0, spans=[tool("search", after=1)]),
        member("b", not_called, 0.0, spans=[tool("search", after=1)]),
        member("c", called, 0.0),
    )
    outcome, turn, whole = [1.154699, -0.577349, -0.577349], [0.577349, -1.154699, 0.577349], [0.999999, -0.999999, 0.0]
    found = advantages({"name": "mt_grpo", "turn_weight": 0.5}, one)
    assert found[0] == pytest.approx([outcome[0] + 0.5 * turn[0], outcome[0]], abs=2e-6)
    assert found[1] == pytest.approx([outcome[1] + 0.5 * turn[1], outcome[1]], abs=2e-6)
    assert found[2] == pytest.approx([whole[2], whole[2]], abs=2e-6)


def test_replay_without_a_state_of_known_value_is_the_reward_less_the_groups_mean() -> None:
    found = advantages("replay", three_rollouts())
    assert found == [pytest.approx([1 / 3] * 3), pytest.approx([-2 / 3] * 3), pytest.approx([1 / 3] * 2)]


def test_a_group_of_one_teaches_nothing_but_by_replay() -> None:
    for name in ("discounted", "gigpo", "hgpo", "tree"):
        assert advantages(name, group(member("a", states(0, 1, 2), 1.0))) == [NOTHING]


def test_a_state_seen_twice_in_one_rollout_is_compared_with_itself() -> None:
    """The agent came back: the later of two calls from one state returned more."""
    one = group(member("a", states(0, 0), 1.0))
    assert advantages({"name": "gigpo", "scale": "none", "gamma": 0.5}, one) == [[-0.25, 0.25]]


def test_the_share_of_calls_with_a_peer_is_logged() -> None:
    """The first calls of all three and the second of two; what one rollout sees twice is no peer."""
    assert numbers("gigpo", three_rollouts()) == {"credit_calls_with_peer": 5 / 8}
    assert numbers("hgpo", three_rollouts()) == {"credit_calls_with_peer": 5 / 8}
    assert numbers("gigpo", group(member("a", states(0, 0), 1.0))) == {"credit_calls_with_peer": 0.0}
    assert numbers({"name": "gigpo", "omega": 0.0}, three_rollouts()) == {}


@pytest.mark.parametrize("name", ["gigpo", "hgpo"])
def test_few_peers_are_said_once_with_what_needs_none(name: str, caplog: pytest.LogCaptureFixture) -> None:
    from agentlightning.credit import load_credit

    credit = load_credit(name)
    strangers = [group(member("a", states(0, 1), 1.0), member("b", states(2, 3), 0.0)) for _ in range(2)]
    for one in strangers:
        numbers(credit, one)
    (record,) = caplog.records
    assert "only 0 % of the calls" in record.getMessage()
    assert "gagpo, which needs no equal states" in record.getMessage()
    numbers(load_credit(name), three_rollouts())
    assert len(caplog.records) == 1
