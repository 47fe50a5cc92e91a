"""Outcome is not reward: what the whole rollout was worth is reported; that and its steps' rewards are learned from."""

from typing import Any

import pytest

from agentlightning.causes import explain_rollouts
from agentlightning.cli.curve import rewards_by_step
from agentlightning.records import Failure, Purpose, Reward, Rollout, RolloutStatus, decode, encode
from agentlightning.report import evaluations_of

WHOLE = Reward(name="right", value=1.0, weight=2.0)
STEP = Reward(name="hint", value=0.5, step=True)
UNSCORED = Reward(name="judge", value=None)


def ended(*rewards: Reward, status: RolloutStatus = "succeeded", purpose: Purpose = "train", **fields: Any) -> Rollout:
    return Rollout(
        id="r",
        run_id="run",
        group_id="g",
        task_id="t",
        purpose=purpose,
        step=1,
        status=status,
        rewards=list(rewards),
        **fields,
    )


@pytest.mark.parametrize(
    ("rewards", "outcome", "total_reward"),
    [
        ([], None, None),
        ([WHOLE], 2.0, 2.0),
        ([WHOLE, STEP], 2.0, 2.5),
        ([STEP, STEP], None, 1.0),
        ([WHOLE, UNSCORED], None, None),
        ([WHOLE, Reward(name="hint", value=None, step=True)], 2.0, None),
        ([Reward(name="a", value=1e308), Reward(name="b", value=1e308)], None, None),
    ],
    ids=["none", "of the whole", "of both", "of steps alone", "the whole unscored", "a step unscored", "infinite"],
)
def test_the_outcome_is_the_whole_and_the_total_adds_the_steps(
    rewards: list[Reward], outcome: float | None, total_reward: float | None
) -> None:
    rollout = ended(*rewards)
    assert (rollout.outcome, rollout.total_reward) == (outcome, total_reward)
    assert (rollout.is_scorable, rollout.is_trainable) == (outcome is not None, total_reward is not None)


def test_a_reward_that_names_a_span_is_a_step_reward() -> None:
    reward = Reward(name="used", value=1.0, span_id="s1")
    assert reward.step
    assert decode(encode(reward), Reward) == reward


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "running"},
        {"status": "cancelled"},
        {"status": "failed", "failure": Failure(type="timeout", message="", fault="infrastructure")},
    ],
    ids=["still running", "cancelled", "broken by infrastructure"],
)
def test_what_did_not_run_to_its_end_counts_nowhere(fields: dict[str, Any]) -> None:
    rollout = ended(WHOLE, STEP, **fields)
    assert not rollout.is_scorable
    assert not rollout.is_trainable


def test_what_the_agent_did_wrong_itself_counts() -> None:
    rollout = ended(WHOLE, status="failed", failure=Failure(type="agent_error", message=""))
    assert rollout.is_scorable
    assert rollout.is_trainable


def test_step_rewards_inflate_no_evaluation_and_no_curve() -> None:
    (evaluation,) = evaluations_of([ended(WHOLE, STEP, purpose="evaluate")], {})
    assert evaluation.rewards == [2.0]
    (step,) = rewards_by_step([ended(WHOLE, STEP)])
    assert step.mean == 2.0


def test_an_evaluation_of_step_rewards_alone_says_that_the_whole_was_given_none() -> None:
    rollouts = [ended(STEP, purpose="evaluate")]
    (evaluation,) = evaluations_of(rollouts, {})
    assert evaluation.rewards == [None]
    assert explain_rollouts(rollouts) == (
        "1 of 1 could not be scored: 1 × it was given rewards of steps, and none of the whole"
    )
