"""Which rollouts are worth imitating."""

from __future__ import annotations

from collections.abc import Sequence

from agentlightning.records import Group, TrainingRow


def best_rows(groups: Sequence[Group], *, keep: int, threshold: float) -> list[TrainingRow]:
    """The rows of the ``keep`` best rollouts of each group whose reward is at least ``threshold``.

    Of equal rewards the earlier sample is taken; rollouts in which the policy wrote nothing are passed over.
    """
    chosen = []
    for group in sorted(groups, key=lambda group: group.id):
        candidates = [
            (-member.rollout.total_reward, member.rollout.sample, member.rows)
            for member in group.rollouts
            if member.rows and member.rollout.total_reward is not None and member.rollout.total_reward >= threshold
        ]
        candidates.sort(key=lambda candidate: candidate[:2])
        chosen += [row for _, _, rows in candidates[:keep] for row in rows]
    return chosen
