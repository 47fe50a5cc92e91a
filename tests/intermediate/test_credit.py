"""What the credits make of a potential, as the README says. Needs the distribution agentlightning-credit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from intermediate.spans import TASK, Recording, a_rollout, call

from agentlightning.credit import load_credit
from agentlightning.plugins import plugins
from agentlightning.records import Reward
from agentlightning.training_rows import Group, RolloutRows
from agentlightning.transitions import build_rows
from agentlightning_intermediate.reward import Intermediate, IntermediateConfig

pytest.importorskip("agentlightning_credit")


def played(fails: Sequence[bool]) -> Recording:
    """A rollout that calls a tool so many times, and answers."""
    run = Recording()
    for number, failing in enumerate(fails):
        run.answer("", call("calculator", {"a": number}, f"c{number}"))
        run.tool("calculator", id=f"c{number}", fails="no" if failing else None)
    run.answer("4")
    return run


def advantages(credit: dict[str, Any], *, potential: bool) -> list[list[float]]:
    """The advantage of each call: of one whose first tool failed and that was right all the same, of one without a
    failure that was right, of one whose second tool failed and that was wrong."""
    members = []
    for place, (fails, outcome) in enumerate((([True, False], 1.0), ([False, False], 1.0), ([False, True], 0.0))):
        run = played(fails)
        rollout = a_rollout(id=f"r{place}", sample=place, rewards=[Reward(name="right", value=outcome)])
        if potential:
            reward = Intermediate(IntermediateConfig(signals={"tool_error": -0.5}))
            rollout.rewards += reward(rollout, TASK, run.spans)
        members.append(RolloutRows(rollout=rollout, spans=run.spans, rows=build_rows(rollout, run.spans)))
    load_credit(credit).assign([Group(id="g", task=TASK, rollouts=members)])
    return [[float(row.advantages[made.start]) for row, made in member.transitions] for member in members]


@pytest.mark.parametrize("credit", [{"name": "broadcast"}, {"name": "gigpo", "gamma": 1.0, "state": "prompt"}])
def test_credits_that_compare_whole_returns_from_equal_states_do_not_see_it(credit: dict[str, Any]) -> None:
    assert plugins().find("credit", credit["name"])
    with_it, without_it = advantages(credit, potential=True), advantages(credit, potential=False)
    for ours, theirs in zip(with_it, without_it, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_discounted_leaves_the_first_call_and_judges_later_ones_by_the_state_they_were_in() -> None:
    credit = {"name": "discounted", "gamma": 1.0, "scale": "none"}
    plain, shaped = advantages(credit, potential=False), advantages(credit, potential=True)

    assert [one[0] for one in shaped] == pytest.approx([one[0] for one in plain], abs=1e-6)
    assert plain[0][1] == pytest.approx(plain[1][1])
    assert shaped[0][1] > shaped[1][1] + 0.4, "who made the same of a worse state did better"


def test_gagpo_blames_the_call_that_failed() -> None:
    credit = {"name": "gagpo", "gamma": 1.0}
    plain, shaped = advantages(credit, potential=False), advantages(credit, potential=True)

    assert plain[0][0] == pytest.approx(plain[1][0])
    assert shaped[0][0] < shaped[1][0] - 0.05, "of two rollouts that were both right, the call whose tool failed"
