"""The reward ``intermediate`` in a run: through the scoring, into training rows, past the credit; and its config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from intermediate import progress_functions
from intermediate.spans import TASK, Recording, a_rollout, call

from agentlightning.advantages import AdvantageConfig
from agentlightning.config import RewardConfig
from agentlightning.credit import Broadcast
from agentlightning.errors import ConfigError
from agentlightning.plugins import plugins
from agentlightning.records import Failure, Reward, Rollout
from agentlightning.scoring import Scoring
from agentlightning.training_rows import Group, RolloutRows
from agentlightning.transitions import build_rows


def scoring(**config: Any) -> Scoring:
    return Scoring([RewardConfig(name="intermediate", config=config)], plugins())


async def scored(run: Recording, *, outcome: float = 1.0, output: Any = "4", **config: Any) -> Rollout:
    """The rollout with its outcome and its step rewards."""
    rollout = a_rollout(output=output, status="succeeded", rewards=[Reward(name="right", value=outcome)])
    given = await scoring(**config).score(rollout, TASK, run.spans)
    assert given.failures == []
    return msgspec.structs.replace(rollout, rewards=[*rollout.rewards, *given.rewards])


def step_rewards(rollout: Rollout, run: Recording) -> list[float | None]:
    """The reward of each transition, in order."""
    member = RolloutRows(rollout=rollout, spans=run.spans, rows=build_rows(rollout, run.spans))
    return [transition.reward for _, transition in member.transitions]


def failed_and_repeated() -> Recording:
    """A call that fails, the same call again, and the answer."""
    run = Recording()
    run.answer("", call("calculator", {"a": 1}, "c1"))
    run.tool("calculator", id="c1", fails="no such number")
    run.answer("", call("calculator", {"a": 1}, "c2"))
    run.tool("calculator", id="c2", result="4")
    run.answer("4")
    return run


async def test_a_potential_falls_where_something_went_wrong_and_is_given_back_at_the_end() -> None:
    run = failed_and_repeated()
    rollout = await scored(run)

    assert step_rewards(rollout, run) == pytest.approx([-0.1, -0.1, 0.2], abs=1e-8)
    assert [(one.name, one.span_id) for one in rollout.rewards[1:]] == [
        ("intermediate.tool_error", "r-0"),
        ("intermediate.tool_error", "r-4"),
        ("intermediate.tool_repeated", "r-2"),
        ("intermediate.tool_repeated", "r-4"),
    ]
    assert rollout.rewards[1].reason == "calculator failed: no such number (potential 0 → -0.1)"
    assert rollout.rewards[2].reason == "the end (potential -0.1 → 0)"
    assert (rollout.outcome, rollout.total_reward) == (1.0, 1.0)


async def test_a_bonus_is_the_steps_reward_as_it_is() -> None:
    run = failed_and_repeated()
    rollout = await scored(run, shaping="bonus", signals={"tool_error": -0.5, "tool_repeated": -0.25})

    assert step_rewards(rollout, run) == [-0.5, -0.25, None]
    assert (rollout.outcome, rollout.total_reward) == (1.0, 0.25)
    assert [one.reason for one in rollout.rewards[1:]] == [
        "calculator failed: no such number",
        'calculator was called again with {"a": 1}',
    ]


async def test_with_a_discount_a_potential_that_stays_costs_and_gives_too() -> None:
    run = failed_and_repeated()
    rollout = await scored(run, gamma=0.5, signals={"tool_error": -0.5})

    assert step_rewards(rollout, run) == [-0.25, 0.25, 0.5]
    assert [one.reason for one in rollout.rewards[1:]] == [
        "calculator failed: no such number (potential 0 → -0.5)",
        "nothing new (potential -0.5 → -0.5)",
        "the end (potential -0.5 → 0)",
    ]


async def test_a_signal_counts_only_so_often() -> None:
    run = Recording()
    for number in range(4):
        run.answer("", call("calculator", {"a": number}, f"c{number}"))
        run.tool("calculator", id=f"c{number}", fails="no")
    run.answer("4")
    wanted = {"signals": {"tool_error": -0.5}, "most": 2}

    assert step_rewards(await scored(run, **wanted), run) == [-0.5, -0.5, None, None, 1.0]
    assert step_rewards(await scored(run, shaping="bonus", **wanted), run) == [-0.5, -0.5, None, None, None]


async def test_parallel_tools_that_fail_count_together() -> None:
    run = Recording()
    run.answer("", call("a", id="c1"), call("b", id="c2"))
    run.tool("a", id="c1", fails="no", started_at=1.0, ended_at=2.0)
    run.tool("b", id="c2", fails="never", started_at=1.0, ended_at=1.5)
    run.answer("4", started_at=3.0, ended_at=4.0)
    rollout = await scored(run, signals={"tool_error": -0.5})

    assert step_rewards(rollout, run) == [-1.0, 1.0]
    assert rollout.rewards[1].reason == "b failed: never; a failed: no (potential 0 → -1)"


async def test_what_is_not_known_yet_when_a_call_begins_is_not_in_its_state() -> None:
    run = Recording()
    run.answer("", call("slow", id="c1"))
    run.tool("slow", id="c1", fails="no", started_at=1.0, ended_at=3.0)
    run.answer("I wait.", started_at=2.0, ended_at=2.5)
    run.answer("4", started_at=4.0, ended_at=5.0)

    assert step_rewards(await scored(run, signals={"tool_error": -0.5}), run) == [None, -0.5, 0.5]


async def test_the_only_call_of_a_rollout_gets_nothing_by_a_potential() -> None:
    run = Recording()
    run.answer("4", finish_reason="length")

    assert step_rewards(await scored(run), run) == [None]
    assert step_rewards(await scored(run, shaping="bonus", signals={"answer_cut_off": -0.5}), run) == [-0.5]


async def test_each_policy_has_a_potential_of_its_own() -> None:
    run = Recording()
    run.answer("", call("a", id="c1"), policy="planner")
    run.tool("a", id="c1", fails="no")
    run.answer("hm", policy="writer")
    run.answer("so", policy="planner")
    run.answer("4", policy="writer")

    assert step_rewards(await scored(run, signals={"tool_error": -0.5}), run) == [-0.5, None, 0.5, None]


async def test_each_agent_of_a_policy_has_one_where_the_credit_takes_each_by_itself() -> None:
    run = Recording()
    run.answer("", call("a", id="c1"), agent="planner")
    run.tool("a", id="c1", fails="no", agent="planner")
    run.answer("hm", agent="writer")
    run.answer("so", agent="planner")
    run.answer("4", agent="writer")

    assert step_rewards(await scored(run, signals={"tool_error": -0.5}), run) == [-0.5, None, None, 0.5]
    wanted = {"signals": {"tool_error": -0.5}, "per_agent": True}
    assert step_rewards(await scored(run, **wanted), run) == [-0.5, None, 0.5, None]


async def test_a_model_that_is_not_trained_gets_no_reward_beside_one_that_is() -> None:
    run = Recording()
    run.answer("I ask.")
    run.answer("", call("a", id="c1"), policy=None, agent="helper")
    run.tool("a", id="c1", fails="no", agent="helper")
    run.answer("4")
    rollout = await scored(run, shaping="bonus", signals={"tool_error": -0.5})

    assert (rollout.rewards[1:], step_rewards(rollout, run)) == ([], [None, None])


async def test_without_a_trained_model_the_rewards_are_there_to_be_seen() -> None:
    run = Recording()
    for policy in (None, None):
        run.answer("", call("a", id="c1"), policy=policy)
        run.tool("a", id="c1", fails="no")
    rollout = await scored(run, shaping="bonus", signals={"tool_error": -0.5})

    assert [(one.span_id, one.value) for one in rollout.rewards[1:]] == [("r-0", -0.5), ("r-2", -0.5)]
    assert (rollout.outcome, step_rewards(rollout, run)) == (1.0, [])


async def test_a_rollout_without_calls_gets_nothing() -> None:
    assert (await scored(Recording())).rewards[1:] == []


# Credit.


async def groups_of(config: dict[str, Any] | None) -> list[Group]:
    members = []
    for outcome, run in ((1.0, failed_and_repeated()), (0.0, failed_and_repeated()), (0.0, good_run())):
        rollout = a_rollout(status="succeeded", rewards=[Reward(name="right", value=outcome)])
        rollout = rollout if config is None else await scored(run, outcome=outcome, **config)
        members.append(RolloutRows(rollout=rollout, spans=run.spans, rows=build_rows(rollout, run.spans)))
    return [Group(id="g", task=TASK, rollouts=members)]


def good_run() -> Recording:
    run = Recording()
    run.answer("", call("calculator", {"a": 1}, "c1"))
    run.tool("calculator", id="c1", result="4")
    run.answer("5")
    return run


def broadcast(groups: Sequence[Group]) -> list[float]:
    Broadcast(AdvantageConfig()).assign(groups)
    return np.concatenate([row.advantages[row.mask] for group in groups for row in group.rows]).tolist()


async def test_a_potential_changes_nothing_for_a_credit_that_looks_at_totals() -> None:
    assert broadcast(await groups_of({})) == broadcast(await groups_of(None))


async def test_rollouts_of_the_same_outcome_keep_the_same_total_to_the_bit() -> None:
    (group,) = await groups_of({"signals": {"tool_error": -0.1, "tool_repeated": -0.3}})

    assert [member.rollout.total_reward for member in group.rollouts] == [1.0, 0.0, 0.0]


async def test_a_bonus_changes_the_total() -> None:
    wanted = {"shaping": "bonus", "signals": {"tool_error": -0.5}}

    assert broadcast(await groups_of(wanted)) != broadcast(await groups_of(None))


# Progress.


async def test_progress_is_a_potential_relative_to_the_first_call() -> None:
    run = good_run()
    run.answer("4")
    rollout = await scored(run, signals={}, progress="intermediate.progress_functions:by_index")

    assert step_rewards(rollout, run) == [0.5, 0.25, -0.75]
    assert {one.name for one in rollout.rewards[1:]} == {"intermediate.progress"}
    assert rollout.total_reward == 1.0


async def test_progress_is_not_shown_how_the_call_and_the_rollout_end() -> None:
    progress_functions.SEEN.clear()
    await scored(good_run(), signals={}, progress="intermediate.progress_functions:by_index")

    assert progress_functions.SEEN == [(None, None)] * 2


@pytest.mark.parametrize(("function", "message"), [("unknown", "has no progress"), ("broken", "no such room")])
async def test_progress_that_fails_is_a_failure_of_the_reward_and_no_zero(function: str, message: str) -> None:
    run = good_run()
    wanted = scoring(progress=f"intermediate.progress_functions:{function}")
    rewards, failures = await wanted.score(a_rollout(), TASK, run.spans)

    assert [(one.name, one.value) for one in rewards] == [("intermediate", None)]
    assert (failures[0].type, message in failures[0].message) == ("reward_error", True)


# Config.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"signals": {"tool_eror": -0.1}}, "intermediate: signals.tool_eror: there is no such signal; did you mean"),
        ({"signals": {"tool_error": 0.0}}, "signals.tool_error: the weight 0 has no effect"),
        ({"signals": {"tool_error": "much"}}, "reward.config.signals"),
        ({"signals": {"tool_error": 1e9}}, "reward.config.signals"),
        ({"signals": {"retrieval_unused": -0.1}}, "signals.retrieval_unused: is known only at the end"),
        ({"signals": {}}, "intermediate: signals: expected a signal, or a function for progress"),
        ({"signals": {}, "progress": "os:getcwd", "most": 2}, "intermediate.most: has an effect only where there are"),
        ({"shaping": "bonus", "gamma": 0.9}, "intermediate.gamma: has an effect only where shaping is potential"),
        ({"shaping": "bonus", "progress": "os:getcwd"}, "intermediate.progress: has an effect only where shaping is"),
        ({"shaping": "naive"}, "reward.config.shaping"),
        ({"shaping": "bonus", "per_agent": True}, "intermediate.per_agent: has an effect only where shaping is"),
        ({"gamma": 0.0}, "reward.config.gamma"),
        ({"gamma": 1.5}, "reward.config.gamma"),
        ({"most": 0}, "reward.config.most"),
        ({"sql_tools": ["ask"]}, "intermediate.sql_tools: has an effect only where signals has sql_invalid or"),
        ({"json_agents": ["a"]}, "intermediate.json_agents: has an effect only where signals has answer_not_json"),
        ({"progress": "nowhere:f"}, "intermediate: progress: nowhere:f: no module named 'nowhere'"),
        ({"progress": "intermediate.progress_functions:NUMBER"}, "expected a function that is not asynchronous"),
        ({"progress": "intermediate.progress_functions:later"}, "expected a function that is not asynchronous"),
        ({"progress": "os.path:basename"}, "is called with a rollout, a task, an llm span: too many positional"),
        ({"wieght": 1}, "reward.config.wieght: unknown key"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        scoring(**config)
    assert message in str(error.value)


async def test_a_failure_of_the_infrastructure_is_no_fault_of_a_step() -> None:
    run = Recording()
    run.answer("", call("a", id="c1"))
    run.tool("a", id="c1", fails=Failure(type="rate_limited", message="429", fault="infrastructure"))
    run.answer("4")

    assert (await scored(run)).rewards[1:] == []
