"""The rewards of a rollout by itself: given in the process that trains, wherever the rollout ran."""

from __future__ import annotations

from collections.abc import Sequence

from agentlightning.errors import StoreError
from agentlightning.recording import outside
from agentlightning.records import Failure, Reward, Rollout, Span, Task
from agentlightning.runner import RunnerSetup
from agentlightning.scoring import are_given


class RolloutRewards:
    """Scores the rollouts of a run, those that are about to be written and those that are in its store.

    Which rewards a rollout has is read from the store, so none is given twice, and a run that goes on gives those that
    it was cut off before.
    """

    def __init__(self, setup: RunnerSetup) -> None:
        self._scoring = setup.scoring
        self._store = setup.store
        self._seconds = setup.config.reward_timeout

    async def give(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> None:
        """Adds the rewards to a rollout that ran to its end, beside those that its agent gave."""
        rewards, failure = await self._score(rollout, task, spans)
        rollout.rewards = [*rollout.rewards, *rewards]
        if rollout.failure is None:
            rollout.failure = failure

    async def complete(self, id: str, task: Task) -> bool:
        """Gives a rollout that is in the store those that it lacks; whether it lacked any.

        Raises `StoreError` where the store does not take them.
        """
        rollout, spans = await self._store.rollout_with_spans(id)
        if not rollout.ran_to_its_end or self._has_all(rollout, spans):
            return False
        with outside():  # a reward's model calls are part of no rollout
            rewards, failure = await self._score(rollout, task, spans)
        named = {(reward.name, reward.span_id) for reward in rewards}
        kept = [one for one in rollout.rewards if (one.name, one.span_id) in named]  # the agent's own are not replaced
        if not await self._store.add_rewards(rollout.id, rollout.attempt, [*kept, *rewards], failure):
            raise StoreError(
                f"rollout {rollout.id}: the store has not taken the rewards of attempt {rollout.attempt}, which has "
                "ended; go on with --resume"
            )
        return True

    def may_lack_some(self, rollout: Rollout) -> bool:
        """Whether a rollout that has ended is to be looked at by `complete`."""
        return rollout.ran_to_its_end and not are_given(self._scoring.rewards, rollout.rewards)

    def _has_all(self, rollout: Rollout, spans: Sequence[Span]) -> bool:
        by_agent = {(one.name, one.span_id, one.at) for one in (span.reward for span in spans) if one is not None}
        rewards = [one for one in rollout.rewards if (one.name, one.span_id, one.at) not in by_agent]
        in_vain = rollout.failure is None and any(span.kind == "reward" and span.failure for span in spans)
        return are_given(self._scoring.rewards, rewards) and not in_vain

    async def _score(self, rollout: Rollout, task: Task, spans: Sequence[Span]) -> tuple[list[Reward], Failure | None]:
        rewards, failures = await self._scoring.score(rollout, task, spans, seconds=self._seconds)
        return rewards, next(iter(failures), None)
