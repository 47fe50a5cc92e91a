"""Reward plugins composed, in threads or processes, and the number that each of a rollout's rewards is."""

from agentlightning.scoring.component import RewardLike as RewardLike
from agentlightning.scoring.composed import Scoring as Scoring
from agentlightning.scoring.composed import are_given as are_given
