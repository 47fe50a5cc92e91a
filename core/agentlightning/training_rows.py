"""What is trained on, as types. They live in memory: the store keeps the spans that they are built from.

Transition    state, action, reward: one model call of a policy, as a slice of a row
TrainingRow   transitions whose prompts extend one another, token for token
RolloutRows   a rollout, its spans, and the rows that its policy wrote
Group         the rollouts of one task that are compared with each other

Token arrays are one-dimensional numpy arrays: ids int32, log-probabilities and advantages float32, masks bool.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from agentlightning.records import Record, Rollout, Span, Task


class Transition(Record, kw_only=True):
    """One model call of a policy, as a slice of its `TrainingRow`: the tokens before ``start`` are its state, those in
    [``start``, ``end``) its action.

    ``index`` is its place among the transitions of its rollout, by when they began. ``reward`` is what was recorded for
    this very step (None: nothing was).
    """

    span_id: str
    index: int = 0
    agent: str | None = None
    policy: str
    policy_version: int | None = None
    start: int
    end: int
    reward: float | None = None


class TrainingRow(Record, kw_only=True):
    """Transitions of one agent whose prompts extend one another, token for token, as one row.

    ``token_ids`` (T,); ``mask`` (T,), true where the policy wrote the token; ``logprobs`` (T,) of the sampler, 0 where
    the mask is false; ``advantages`` (T,), 0 where the mask is false and NaN where nobody has given one yet. One
    version of one policy wrote all of a row, at one temperature.
    """

    rollout_id: str
    agent: str | None = None
    policy: str
    policy_version: int | None = None
    token_ids: np.ndarray
    mask: np.ndarray
    logprobs: np.ndarray
    advantages: np.ndarray
    temperature: float = 1.0
    transitions: list[Transition] = []

    def set_advantage(self, transition: Transition, value: float) -> None:
        """Gives every token of a transition its advantage. Raises `ValueError` for one that is not finite."""
        if not math.isfinite(value):
            raise ValueError(f"the advantage of a transition of rollout {self.rollout_id} is {value}")
        self.advantages[transition.start : transition.end] = value

    @property
    def trained_tokens(self) -> int:
        """How many tokens the policy wrote."""
        return int(self.mask.sum())


class RolloutRows(Record, kw_only=True):
    """A rollout, what happened in it by index, and the rows of the calls that a policy answered, in the order in which
    they began."""

    rollout: Rollout
    spans: list[Span] = []
    rows: list[TrainingRow] = []

    def set_advantage(self, value: float) -> None:
        """Gives every transition of the rollout the same advantage."""
        for row, transition in self.transitions:
            row.set_advantage(transition, value)

    @property
    def transitions(self) -> list[tuple[TrainingRow, Transition]]:
        """Every transition of the rollout with its row, in the order in which they began."""
        pairs = [(row, transition) for row in self.rows for transition in row.transitions]
        return sorted(pairs, key=lambda pair: pair[1].index)

    @property
    def prefix_breaks(self) -> int:
        """How many calls began a new row though their agent had one of that policy's version."""
        return len(self.rows) - len({(row.agent, row.policy, row.policy_version) for row in self.rows})


class Group(Record, kw_only=True):
    """The rollouts of one task that are compared with each other.

    ``rollouts`` are the trainable ones, by sample; ``excluded`` those that infrastructure broke or that nobody could
    score: counted, never scored zero.
    """

    id: str
    task: Task
    rollouts: list[RolloutRows]
    excluded: list[Rollout] = []

    @property
    def rows(self) -> list[TrainingRow]:
        """The rows of all of its rollouts."""
        return [row for member in self.rollouts for row in member.rows]

    def with_rows(self, keep: Callable[[TrainingRow], bool]) -> Group:
        """The same rollouts, each with the rows alone that ``keep`` says: one policy's, or one agent's."""
        rollouts = [
            RolloutRows(rollout=member.rollout, spans=member.spans, rows=[row for row in member.rows if keep(row)])
            for member in self.rollouts
        ]
        return Group(id=self.id, task=self.task, rollouts=rollouts, excluded=self.excluded)

    @property
    def has_signal(self) -> bool:
        """Whether any of its tokens has an advantage other than zero: else there is nothing to learn from it."""
        return any(bool(row.advantages.any()) for row in self.rows)

    @property
    def all_rollouts(self) -> list[Rollout]:
        """Those that are compared, then those that are not."""
        return [*(member.rollout for member in self.rollouts), *self.excluded]

    @property
    def without_calls(self) -> list[Rollout]:
        """The rollouts that made no call of a policy while others of the group did, and failed in nothing: something
        answered in the policy's place, and there is nothing to train on."""
        if not self.rows:
            return []
        return [one.rollout for one in self.rollouts if not one.rows and one.rollout.status == "succeeded"]
