"""Which rollouts are worth imitating."""

from __future__ import annotations

from agentlightning.training_rows import Group, RolloutRows


def best_rollouts(group: Group, *, keep: int, threshold: float) -> list[RolloutRows]:
    """The ``keep`` best rollouts of a group whose reward is at least ``threshold``, the best first.

    Of equal rewards the earlier sample is taken; rollouts in which the policy wrote nothing are passed over.
    """
    candidates = [
        (-member.rollout.total_reward, member.rollout.sample, member)
        for member in group.rollouts
        if member.rows and member.rollout.total_reward is not None and member.rollout.total_reward >= threshold
    ]
    return [member for _, _, member in sorted(candidates, key=lambda candidate: candidate[:2])[:keep]]
