"""Rewards that see the rollouts of a task together: given when the last of them has ended."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence

from agentlightning.recording import outside
from agentlightning.records import Rollout, Task
from agentlightning.runner import RunnerSetup
from agentlightning.scoring import are_given


class GroupRewards:
    """The group rewards of a run, kept by its store with the other rewards of each rollout."""

    def __init__(self, setup: RunnerSetup) -> None:
        self._scoring = setup.scoring
        self._store = setup.store
        self._seconds = setup.config.reward_timeout
        self._notify = setup.notify

    async def when_scored(
        self, ids: AsyncIterable[str], planned: Sequence[Rollout], tasks: Mapping[str, Task]
    ) -> AsyncGenerator[str, None]:
        """The ids of rollouts that have ended, held back until their whole group has ended and been scored.

        Groups are scored beside one another and while further rollouts run. Without a group reward nothing is held
        back.
        """
        if not self._scoring.group_rewards:
            async for id in ids:
                yield id
            return
        group_of = {rollout.id: rollout.group_id for rollout in planned}
        missing = Counter(group_of.values())
        task_of = {rollout.group_id: tasks[rollout.task_id] for rollout in planned}
        members: dict[str, list[str]] = {group: [] for group in missing}
        scored: deque[asyncio.Task[list[str]]] = deque()
        try:
            async for id in ids:
                group = group_of[id]
                members[group].append(id)
                if len(members[group]) == missing[group]:
                    scored.append(asyncio.create_task(self._score(members[group], task_of[group])))
                while scored and scored[0].done():
                    for ended in scored.popleft().result():
                        yield ended
            while scored:
                for ended in await scored.popleft():
                    yield ended
        finally:
            for task in scored:
                task.cancel()

    async def _score(self, ids: list[str], task: Task) -> list[str]:
        """Gives the rewards to those that ran to their end, where they have not got them from an earlier run."""
        found = [await self._store.rollout_with_spans(id) for id in ids]
        members = sorted((one for one in found if one[0].ran_to_its_end), key=lambda one: one[0].sample)
        rollouts, spans = [rollout for rollout, _ in members], [spans for _, spans in members]
        if members and all(are_given(self._scoring.group_rewards, rollout.rewards) for rollout in rollouts):
            return ids
        with outside():  # a reward's model calls are part of no rollout
            scored = await self._scoring.score_group(rollouts, task, spans, seconds=self._seconds)
        for rollout, (rewards, failures) in zip(rollouts, scored, strict=True):
            await self._store.add_rewards(rollout.id, rollout.attempt, rewards, next(iter(failures), None))
        for id in ids:
            rollout, of_rollout = await self._store.rollout_with_spans(id)
            self._notify("rollout_finished", rollout=rollout, task=task, spans=of_rollout)
        return ids
