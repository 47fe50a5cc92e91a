"""Work orders: which rollouts are asked for at once, and what each of them is to run with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from agentlightning.credit import BranchPoint
from agentlightning.errors import AlgorithmError
from agentlightning.records import AnyResource, Purpose, Replay, Rollout, Task
from agentlightning.store.base import Store


class WorkOrders:
    """The collections of one run: named, and known to the store before any of their rollouts is queued."""

    def __init__(self, run_id: str, store: Store) -> None:
        self._run_id = run_id
        self._store = store
        self._collected: Counter[str] = Counter()

    def next_key(self, step: int, purpose: Purpose = "train") -> str:
        """The name of the step's next collection: a run that goes on asks for the same ones, under the same names."""
        name = f"{purpose}/{step}"
        self._collected[name] += 1
        count = self._collected[name]
        return name if count == 1 else f"{name}/{count}"

    def plan(
        self,
        collection: str,
        tasks: Sequence[Task],
        samples: int,
        *,
        purpose: Purpose,
        step: int = 0,
        variant: str = "",
    ) -> list[Rollout]:
        """``samples`` rollouts of each task, the i-th group those of the i-th task, in order."""
        rollouts = []
        for position, task in enumerate(tasks):
            group = _digest(self._run_id, collection, position, task.id)
            rollouts += _samples(
                group,
                samples,
                run_id=self._run_id,
                task_id=task.id,
                purpose=purpose,
                step=step,
                variant=variant,
                collection=collection,
            )
        return rollouts

    def plan_branches(self, collection: str, points: Sequence[BranchPoint], count: int, *, step: int) -> list[Rollout]:
        """``count`` rollouts from each point, the i-th group those of the i-th point, in order."""
        planned = []
        for position, (origin, calls) in enumerate(points):
            group = _digest(self._run_id, collection, position, origin.id, origin.attempt, calls)
            planned += _samples(
                group,
                count,
                run_id=self._run_id,
                task_id=origin.task_id,
                purpose="branch",
                step=step,
                collection=collection,
                replays=Replay(rollout_id=origin.id, attempt=origin.attempt, calls=calls),
            )
        return planned

    async def enqueue(self, planned: Sequence[Rollout], resources: Iterable[AnyResource]) -> list[Rollout]:
        """Queues one collection's rollouts to run with ``resources``; returns them as they stand, in the order given.

        The resources are stored first, and the rollouts name their digests. A collection that is known already is
        returned as it was recorded. Raises `AlgorithmError` where it was asked for with other tasks, another size,
        for another step or with other resources: its rollouts are not the ones that are wanted.
        """
        digests = {}
        for resource in resources:
            digests[resource.name] = resource.digest
            await self._store.put_resource(self._run_id, resource)
        for rollout in planned:
            rollout.resources = digests
        if planned:
            known = await self._store.rollouts(self._run_id, collection=planned[0].collection)
            _refuse_what_differs(known, planned)
        return await self._store.enqueue(planned)


def _samples(group: str, count: int, **fields: Any) -> list[Rollout]:
    """The rollouts of a group, which differ in nothing but their number."""
    return [Rollout(id=_digest(group, sample), group_id=group, sample=sample, **fields) for sample in range(count)]


def _refuse_what_differs(known: Sequence[Rollout], planned: Sequence[Rollout]) -> None:
    if not known:
        return
    before, now = known[0], planned[0]
    if [rollout.id for rollout in known] != [rollout.id for rollout in planned]:
        difference = f"other tasks or another size ({len(known)} rollouts, now {len(planned)})"
    elif (before.purpose, before.step, before.variant) != (now.purpose, now.step, now.variant):
        difference = f"another step or variant (step {before.step}, now {now.step})"
    elif before.resources != now.resources:
        names = before.resources.keys() | now.resources.keys()
        changed = sorted(name for name in names if before.resources.get(name) != now.resources.get(name))
        difference = f"other resources ({', '.join(changed)})"
    else:
        return
    raise AlgorithmError(
        f"the collection {now.collection!r} of this run was asked for before with {difference}; "
        "give this one a key, or a step and variant, of its own"
    )


def _digest(*parts: object) -> str:
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).hexdigest()
