"""MT-GRPO: step rewards for what was written before a tool's result, the outcome for everything."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np

from agentlightning.config import NonNegative, Positive
from agentlightning.credit import Credit
from agentlightning.records import Rollout
from agentlightning.training_rows import Group, RolloutRows
from agentlightning_credit.advantages import EPS, standardized
from agentlightning_credit.returns import total_rewards
from agentlightning_credit.spans import call_spans, generation_of, tool_spans


class MTGRPOConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """``turn_weight`` weighs the step rewards (λ); ``eps`` is added to deviations."""

    turn_weight: NonNegative = 1.0
    eps: Positive = EPS


class MTGRPO(Credit):
    """Turn and outcome, each standardized over the rollouts of the group (Zeng et al. 2025, 2505.11821; numbers of
    SiliangZeng/Multi-Turn-RL-Agent, ``aae``).

        A = z(R_O) + λ·z(R_T)   for calls before the first result of a tool
        A = z(R_O)              for calls after it
        A = z(R_O + R_T)        for all calls of a rollout without one

    R_O is the outcome (0 where a rollout has none), R_T the sum of the step rewards. A result is known by the ``tool``
    spans of a rollout, where it has none by the messages of role ``tool`` in a prompt. To take where step rewards say
    how good the calls of tools were, and an answer follows.
    """

    Config = MTGRPOConfig

    def assign(self, groups: Sequence[Group]) -> None:
        score = functools.partial(standardized, eps=self.config.eps)
        for group in groups:
            outcomes = score(np.array([member.rollout.outcome or 0.0 for member in group.rollouts]))
            turns = score(np.array([_step_reward(member.rollout) for member in group.rollouts]))
            sums = score(total_rewards(group))
            for member, outcome, turn, whole in zip(group.rollouts, outcomes, turns, sums, strict=True):
                after = _after_result(member)
                if after is None:
                    member.set_advantage(float(whole))
                    continue
                for (row, call), follows in zip(member.transitions, after, strict=True):
                    row.set_advantage(call, float(outcome + self.config.turn_weight * turn * (not follows)))


def _step_reward(rollout: Rollout) -> float:
    return sum(part.weight * part.value for part in rollout.rewards if part.step and part.value is not None)


def _after_result(member: RolloutRows) -> list[bool] | None:
    """Of each call, whether a tool had given a result when it began; None where none ever did."""
    spans = call_spans(member)
    ended = [span.ended_at for span in tool_spans(member) if span.ended_at is not None]
    if ended:
        return [span.started_at >= min(ended) for span in spans]
    after = [any(message.get("role") == "tool" for message in generation_of(span).messages) for span in spans]
    return after if any(after) else None
