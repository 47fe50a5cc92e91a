"""Which rollouts are worth imitating."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from agentlightning.records import Group, Sequence, Trajectory


def best_sequences(groups: Seq[Group], *, keep: int, threshold: float) -> list[Sequence]:
    """The sequences of the ``keep`` best rollouts of each group whose reward is at least ``threshold``.

    Of equal rewards the earlier sample is taken; rollouts in which the policy wrote nothing are passed over.
    """
    chosen = []
    for group in sorted(groups, key=lambda group: group.id):
        candidates = []
        for rollout, trajectories in zip(group.rollouts, group.trajectories, strict=True):
            rows = _rows(trajectories)
            if rows and rollout.total_reward is not None and rollout.total_reward >= threshold:
                candidates.append((-rollout.total_reward, rollout.sample, rows))
        candidates.sort(key=lambda candidate: candidate[:2])
        chosen += [row for _, _, rows in candidates[:keep] for row in rows]
    return chosen


def has_tokens(trajectories: Seq[Trajectory]) -> bool:
    """Whether the policy wrote anything in a rollout of these trajectories."""
    return bool(_rows(trajectories))


def _rows(trajectories: Seq[Trajectory]) -> list[Sequence]:
    return [row for trajectory in trajectories for row in trajectory.sequences if row.mask.any()]
