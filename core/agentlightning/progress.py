"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping

from agentlightning.algorithm import Evaluation
from agentlightning.records import Purpose, Rollout
from agentlightning.store.base import RunRecord


class Progress:
    """What a run tells whoever watches it. This one says nothing; those of `agentlightning.cli` show it.

    Called from the event loop of the run, in this order: `start`; then, again and again, `collection` when a
    collection or an evaluation begins, `rollout` at the end of each of its rollouts, `evaluation` or `step`
    at its end; then `stop`. In between `phase`, from any thread, for what is no rollout.
    """

    run: RunRecord | None = None
    """The run that was started, for whoever has to say how to go on with it."""

    def start(self, run: RunRecord, steps: int | None = None, *, concurrency: int | None = None) -> None:
        """A run begins, or goes on; ``concurrency`` of its rollouts run at once."""
        self.run = run

    def collection(self, name: str, total: int, *, purpose: Purpose = "train") -> None:
        """A collection or an evaluation of ``total`` rollouts begins."""

    def rollout(self, rollout: Rollout, tokens: int) -> None:
        """A rollout of the collection has ended; its agent was answered with ``tokens`` tokens."""

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """Something that is no rollout goes on, until the next phase, collection, step or evaluation: an update, say,
        of whose ``total`` parts so many are ``done``."""

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Step ``step`` of ``steps`` is done."""

    def stopped(self, step: int, reason: str) -> None:
        """No step follows on ``step``, though there could be more."""

    def evaluation(self, evaluation: Evaluation, metrics: Mapping[str, float] | None = None) -> None:
        """An evaluation is done; ``metrics`` is what was counted of its rollouts (`agentlightning.diagnostics`)."""

    def message(self, text: str) -> None:
        """Something that a person should read."""

    def stop(self) -> None:
        """The run has ended, one way or another."""
