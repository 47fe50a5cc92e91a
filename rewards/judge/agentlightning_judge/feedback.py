"""The reward ``feedback``: says in a config that what users think counts, how much, and what it means that nobody has
said anything.

``POST /v1/feedback`` of a Lightning Server gives a rollout the reward of that name by itself, however late: the mean
over its users, of each the last word. It takes the weight from the config of the rollout's run.
"""

from __future__ import annotations

from agentlightning.config import Section
from agentlightning.records import Reward, Rollout, Task

NAME = "feedback"


class FeedbackConfig(Section):
    """With ``required``, a rollout has no outcome until a user has said something; without, its other rewards are its
    outcome until then."""

    required: bool = True


class UserFeedback:
    """None where no user has said anything. What users have said is among the rollout's rewards already, and is not
    given twice."""

    Config = FeedbackConfig

    def __init__(self, config: FeedbackConfig) -> None:
        self._config = config

    def __call__(self, rollout: Rollout, task: Task) -> list[Reward]:
        if not self._config.required or any(reward.name == NAME for reward in rollout.rewards):
            return []
        reason = f"no user has said anything of it yet; POST /v1/feedback takes it for rollout {rollout.id}"
        return [Reward(name=NAME, value=None, reason=reason)]
