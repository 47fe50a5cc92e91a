"""Several workers on one store, in any order, beside a model of it. A new store is run through it: subclass
`StoreMachine`, and say how to open one (tests/core/test_store_contract.py)."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from store_records import FOR_EVER, a_rollout

from agentlightning.records import Reward, Rollout
from agentlightning.store import Store

IDS = [f"rollout {number}" for number in range(6)]
WORKERS = st.sampled_from(["one", "two", "three"])
LASTS = st.booleans()


class StoreMachine(RuleBasedStateMachine):
    """Several workers on one store, in any order, beside a model of it: a dict and a list.

    A subclass opens the store; each time the same one.
    """

    attempts = Bundle("attempts")

    def open(self) -> Store:
        """Opens the store of this machine."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.Runner()
        self.store = self.open()
        self.model: dict[str, Rollout] = {}
        self.holders: dict[str, tuple[str, bool]] = {}
        """Of each that runs: its worker, and whether its lease lasts."""

    @rule(ids=st.lists(st.sampled_from(IDS), unique=True))
    def enqueue(self, ids: list[str]) -> None:
        known = self.loop.run(self.store.enqueue([self._new(id) for id in ids]))
        for id in ids:
            self.model.setdefault(id, self._new(id))
        assert known == [self.model[id] for id in ids]

    @rule(
        target=attempts,
        worker=WORKERS,
        lasts=LASTS,
        limit=st.integers(1, 4),
        among=st.none() | st.lists(st.sampled_from(IDS), unique=True),
    )
    def lease(self, worker: str, lasts: bool, limit: int, among: list[str] | None) -> Any:
        leased = self.loop.run(self.store.lease(worker, ids=among, limit=limit, seconds=_seconds(lasts)))
        free = [rollout for id, rollout in self.model.items() if self._is_free(id) and (among is None or id in among)]
        for rollout in free[:limit]:
            rollout.status, rollout.attempt = "running", rollout.attempt + 1
            self.holders[rollout.id] = (worker, lasts)
        assert leased == free[:limit]
        return multiple(*((rollout.id, rollout.attempt) for rollout in leased))

    @rule(worker=WORKERS, lasts=LASTS)
    def heartbeat(self, worker: str, lasts: bool) -> None:
        self.loop.run(self.store.heartbeat(worker, seconds=_seconds(lasts)))
        for id, (holder, _) in self.holders.items():
            if holder == worker:
                self.holders[id] = (worker, lasts)

    @rule(
        attempt=attempts,
        status=st.sampled_from(["succeeded", "failed", "cancelled", "queued"]),
        output=st.integers(0, 9),
    )
    def finish(self, attempt: tuple[str, int], status: Any, output: int) -> None:
        id, number = attempt
        result = self._new(id)
        result.status, result.attempt, result.output = status, number, output
        known = self.model[id]
        is_leased = known.status == "running" and known.attempt == number
        assert self.loop.run(self.store.finish(result)) is is_leased
        if is_leased:
            self.model[id] = result
            del self.holders[id]

    @rule(attempt=attempts, name=st.sampled_from(["liked", "used"]), value=st.integers(0, 3))
    def add_reward(self, attempt: tuple[str, int], name: str, value: int) -> None:
        id, number = attempt
        reward = Reward(name=name, value=float(value), at=0.0)
        known = self.model[id]
        has_finished = known.finished and known.attempt == number
        assert self.loop.run(self.store.add_rewards(id, number, [reward])) is has_finished
        if has_finished:
            known.rewards = [other for other in known.rewards if other.name != name] + [reward]

    @rule(ids=st.lists(st.sampled_from(IDS), unique=True))
    def wait(self, ids: list[str]) -> None:
        ended = [rollout for id, rollout in self.model.items() if id in ids and rollout.finished]
        assert self.loop.run(self.store.wait(ids, seconds=0)) == ended

    @rule()
    def close_and_open_again(self) -> None:
        self.loop.run(self.store.close())
        self.store = self.open()
        for id in self.holders:
            self.model[id].status = "queued"
        self.holders = {}

    @invariant()
    def every_rollout_is_as_the_model_has_it(self) -> None:
        if self.model:
            assert self.loop.run(self.store.rollouts("run")) == list(self.model.values())
            (summary,) = self.loop.run(self.store.summary("run")).collections
            assert summary.rollouts == len(self.model)
            assert summary.ended == sum(rollout.finished for rollout in self.model.values())
            assert self.loop.run(self.store.wait_for_ended("run", more_than=-1, seconds=0)) == summary.ended
            statuses = [rollout.status for rollout in self.model.values()]
            tries = {one.type: one.count for one in self.loop.run(self.store.tries("run"))}
            assert tries.get(None, 0) == statuses.count("succeeded")
            assert tries.get("failed", 0) == statuses.count("failed")

    def teardown(self) -> None:
        self.loop.run(self.store.close())
        self.loop.close()

    def _is_free(self, id: str) -> bool:
        return self.model[id].status == "queued" or (id in self.holders and not self.holders[id][1])

    def _new(self, id: str) -> Rollout:
        rollout = a_rollout(id)
        rollout.created_at = 0.0
        return rollout


def _seconds(lasts: bool) -> float:
    return FOR_EVER if lasts else 0.0
