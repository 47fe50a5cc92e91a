"""Credits that have rollouts run again from their middle: on a chain of calls whose values are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from credit.chains import RIGHT, WRONG, Simulator, chain
from credit.made import Call, advantages, group, member, numbers, tool

from agentlightning.credit import BranchPoint, Credit, load_credit
from agentlightning.errors import AlgorithmError
from agentlightning.training_rows import Group, RolloutRows


def two_right_two_wrong() -> Group:
    """The first two go the same way until their last call."""
    return group(
        chain("a", [RIGHT, RIGHT, RIGHT]),
        chain("b", [RIGHT, RIGHT, WRONG]),
        chain("c", [RIGHT, WRONG, RIGHT]),
        chain("d", [WRONG, WRONG, RIGHT]),
    )


async def explored(choice: str | dict[str, Any], one: Group, simulator: Simulator) -> Credit:
    credit = load_credit(choice)
    await credit.explore([one], simulator)
    return credit


async def test_replay_gives_each_call_what_it_changed() -> None:
    one = two_right_two_wrong()
    simulator = Simulator(one)
    credit = await explored("replay", one, simulator)
    assert advantages(credit, one) == [[0.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0], [0.0, -0.5, 0.0]]
    assert len(one.rollouts) == 4
    assert simulator.counts == [4]


async def test_replay_values_what_rollouts_have_in_common_once() -> None:
    one = two_right_two_wrong()
    simulator = Simulator(one)
    credit = await explored({"name": "replay", "count": 3}, one, simulator)
    assert simulator.asked == [("a", 1), ("a", 2), ("c", 2), ("d", 1), ("d", 2)]
    assert numbers(credit, one) == {"replay_states": 5, "replay_rollouts": 15}


async def test_equal_histories_of_two_tasks_are_two_states() -> None:
    one, other = two_right_two_wrong(), two_right_two_wrong()
    other.id = "other"
    simulator = Simulator(one)
    await load_credit("replay").explore([one, other], simulator)
    assert len(simulator.asked) == 10


async def test_an_equal_prompt_after_other_answers_is_another_state() -> None:
    """Nobody sees in the prompt what was answered before, but the environment may have."""
    same = [Call([1], [RIGHT]), Call([1], [RIGHT])]
    other = [Call([1], [WRONG]), Call([1], [RIGHT])]
    one = group(member("a", same, 1.0), member("b", other, 0.0))
    simulator = Simulator(one)
    await explored("replay", one, simulator)
    assert simulator.asked == [("a", 1), ("b", 1)]


async def test_calls_around_a_state_without_a_value_share_the_difference() -> None:
    """No rollout that began with two answers ended well."""
    one = two_right_two_wrong()
    simulator = Simulator(one, worth=lambda answers: 0.75 if len(answers) == 1 else None)
    credit = await explored("replay", one, simulator)
    assert advantages(credit, one) == [
        [0.25, 0.25, 0.25],
        [0.25, 0.25, 0.25],
        [0.25, -0.75, -0.75],
        [0.25, -0.75, -0.75],
    ]
    assert numbers(credit, one) == {"replay_states": 2, "replay_rollouts": 8}


@pytest.mark.parametrize(
    ("points", "expected"), [(1, [2]), (2, [1, 3]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])]
)
async def test_so_many_states_of_a_rollout_are_valued_evenly_spread(points: int, expected: list[int]) -> None:
    one = group(chain("a", [RIGHT] * 5))
    simulator = Simulator(one)
    await explored({"name": "replay", "points": points}, one, simulator)
    assert [calls for _, calls in simulator.asked] == expected


@pytest.mark.parametrize(("tool_name", "expected"), [("pay", [1]), ("search", [1, 2, 3])])
async def test_nothing_is_run_again_after_a_tool_that_may_run_once(tool_name: str, expected: list[int]) -> None:
    one = group(chain("a", [RIGHT] * 4, spans=[tool(tool_name, after=2)]))
    simulator = Simulator(one)
    credit = await explored({"name": "replay", "once": ["pay"]}, one, simulator)
    assert [calls for _, calls in simulator.asked] == expected
    assert len(advantages(credit, one)[0]) == 4


async def test_the_scale_is_that_of_all_rewards_that_are_known() -> None:
    """Where the rollouts of a task earned all the same and their branches did not, no tiny number divides."""
    one = two_right_two_wrong()
    credit = await explored({"name": "replay", "scale": "group"}, one, Simulator(one))
    first = advantages(credit, one)[0]
    rewards = [1, 1, 0, 0, *[0.5] * 8, *[1] * 4, *[0] * 8]
    mean = sum(rewards) / len(rewards)
    deviation = (sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)) ** 0.5
    assert first == pytest.approx([0.0, 0.5 / deviation, 0.0], abs=1e-5)

    alike = group(chain("a", [RIGHT] * 3), chain("b", [RIGHT] * 3))
    credit = await explored({"name": "replay", "scale": "group"}, alike, Simulator(alike))
    assert max(abs(number) for of_rollout in advantages(credit, alike) for number in of_rollout) < 4


async def test_values_are_those_of_the_step() -> None:
    one = two_right_two_wrong()
    credit = await explored("replay", one, Simulator(one))
    following = group(chain("z", [WRONG, RIGHT]))
    await credit.explore([following], Simulator(following))
    assert advantages(credit, one)[0] == [0.5, 0.5, 0.5]


async def test_rollouts_that_another_credit_branched_do_not_count_as_begun_at_the_task() -> None:
    one = group(chain("a", [RIGHT, RIGHT]), chain("b", [RIGHT, WRONG]), chain("c", [RIGHT, RIGHT], purpose="branch"))
    simulator = Simulator(one)
    credit = await explored("replay", one, simulator)
    assert simulator.asked == [("a", 1)]
    assert advantages(credit, one) == [[0.0, 0.5], [0.0, -0.5], [0.0, 0.5]]


@pytest.mark.parametrize("choice", ["replay", "tree"])
async def test_rollouts_of_one_call_and_of_none_need_no_branches(choice: str) -> None:
    async def branch(points: Sequence[BranchPoint], *, count: int) -> list[list[RolloutRows]]:
        raise AlgorithmError("nobody asked for branches")

    one = group(member("a", [Call([1])], 1.0), member("b", [], 0.0), member("c", [Call([1], [8])], 0.0))
    credit = load_credit(choice)
    await credit.explore([one, Group(id="empty", task=one.task, rollouts=[])], branch)
    found = advantages(credit, one)
    assert [len(of_rollout) for of_rollout in found] == [1, 0, 1]
    assert found[0][0] > 0 > found[2][0]


async def test_replay_goes_on_from_the_call_that_other_policies_count_too() -> None:
    """Of a rollout whose second call is another policy's, two are seen here: the third call is number 2."""
    one = two_right_two_wrong()
    seen = one.with_rows(lambda row: True)
    for of_rollout in seen.rollouts:
        calls = [pair for pair in of_rollout.transitions if pair[1].index != 1]
        for row in of_rollout.rows:
            row.transitions = [call for _, call in calls if call in row.transitions]
    simulator = Simulator()
    simulator.answers = Simulator(two_right_two_wrong()).answers
    credit = load_credit("replay")
    await credit.explore([seen], simulator)
    assert simulator.asked == [("a", 2), ("b", 2), ("c", 2), ("d", 2)]


async def test_the_branches_of_a_tree_are_rollouts_of_the_group() -> None:
    one = two_right_two_wrong()
    simulator = Simulator(one)
    credit = await explored({"name": "tree", "branches": 2, "count": 3}, one, simulator)
    assert sorted(simulator.asked) == [(name, calls) for name in "abcd" for calls in (1, 2)]
    assert simulator.counts == [3]
    assert len(one.rollouts) == 4 + 4 * 2 * 3
    assert all(of_rollout.rollout.purpose == "branch" for of_rollout in one.rollouts[4:])
    assert [len(of_rollout) for of_rollout in advantages(credit, one)] == [3] * 28


async def test_where_a_rollout_branches_depends_on_its_id_alone() -> None:
    asked = []
    for order in (1, -1):
        one = group(*(chain(f"rollout{number}", [RIGHT] * 5) for number in range(40)))
        one.rollouts = one.rollouts[::order]
        simulator = Simulator(one)
        await explored("tree", one, simulator)
        asked.append(sorted(simulator.asked))
    assert asked[0] == asked[1]
    assert {calls for _, calls in asked[0]} == {1, 2, 3, 4}


async def test_branches_are_not_branched_again() -> None:
    one = two_right_two_wrong()
    simulator = Simulator(one)
    credit = await explored("tree", one, simulator)
    again = Simulator(two_right_two_wrong())
    await credit.explore([one], again)
    assert again.asked == simulator.asked


def test_a_rollout_is_compared_at_its_last_branch_point() -> None:
    """a and b part at their third call, c at the second, d at the first. Over the task the mean is 1/2."""
    one = two_right_two_wrong()
    for of_rollout, reward in zip(one.rollouts, (1.0, 0.0, 1.0, 0.0), strict=True):
        of_rollout.rollout.rewards[0].value = reward
    over_task = 0.5 / (1 / 3) ** 0.5
    over_two, over_three = 0.5**0.5, (1 - 2 / 3) / (1 / 3) ** 0.5
    found = [of_rollout[0] for of_rollout in advantages("tree", one)]
    expected = [over_task + over_two, -over_task - over_two, over_task + over_three, -over_task]
    assert found == pytest.approx(expected, abs=1e-4)


def test_rollouts_that_are_the_same_to_the_end_are_compared_where_others_went_another_way() -> None:
    """a and b are equal, token for token: nothing branches between them."""
    one = group(
        chain("a", [RIGHT, RIGHT]), chain("b", [RIGHT, RIGHT]), chain("c", [RIGHT, WRONG]), chain("d", [WRONG, WRONG])
    )
    over_task = 0.5 / (1 / 3) ** 0.5
    over_three = (1 - 2 / 3) / (1 / 3) ** 0.5
    assert advantages("tree", one)[0] == pytest.approx([over_task + over_three] * 2, abs=1e-4)
    assert advantages("tree", one)[3] == pytest.approx([-over_task] * 2, abs=1e-4)
