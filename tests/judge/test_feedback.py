"""In a config, ``feedback`` says what it means that no user has said anything; what they said counts by itself."""

from __future__ import annotations

from typing import Any

import pytest
from judge.scripted import TASK, rollouts

from agentlightning.config import RewardConfig
from agentlightning.plugins import plugins
from agentlightning.records import Reward, Rollout
from agentlightning.scoring import Scoring, are_given

EXACT = Reward(name="exact", value=1.0)
SAID = Reward(name="feedback", value=0.25, weight=2.0, reason="ann: 0.25")


async def scored(rollout: Rollout, weight: float = 1.0, **config: Any) -> Rollout:
    scoring = Scoring([RewardConfig(name="feedback", weight=weight, config=config)], plugins())
    rewards, failures = await scoring.score(rollout, TASK, [])
    assert failures == []
    rollout.add_rewards(rewards)
    return rollout


async def test_a_rollout_of_which_no_user_has_said_anything_has_no_outcome() -> None:
    rollout = await scored(rollouts("4", rewards=[EXACT])[0], weight=0.5)
    assert rollout.outcome is None
    (reward,) = [reward for reward in rollout.rewards if reward.name == "feedback"]
    assert (reward.value, reward.weight) == (None, 0.5)
    assert "no user has said anything of it yet; POST /v1/feedback takes it for rollout r0" in (reward.reason or "")


async def test_where_it_is_not_required_the_other_rewards_are_the_outcome_until_then() -> None:
    assert (await scored(rollouts("4", rewards=[EXACT])[0], required=False)).outcome == 1.0


@pytest.mark.parametrize("required", [True, False])
async def test_what_users_have_said_is_not_given_twice(required: bool) -> None:
    rollout = await scored(rollouts("4", rewards=[EXACT, SAID])[0], required=required)
    assert rollout.rewards == [EXACT, SAID]
    assert rollout.outcome == 1.5
    assert are_given(["feedback"], rollout.rewards)


async def test_a_later_word_takes_the_place_of_no_word() -> None:
    rollout = await scored(rollouts("4", rewards=[EXACT])[0])
    rollout.add_rewards([SAID])
    assert rollout.outcome == 1.5
