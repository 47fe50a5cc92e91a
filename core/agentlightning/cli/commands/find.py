"""Runs and rollouts by the beginning of their ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from agentlightning.errors import StoreError
from agentlightning.records import Rollout
from agentlightning.store.base import RunRecord, Store

T = TypeVar("T", bound=RunRecord | Rollout)

MAX_LISTED = 10


async def find_run(store: Store, id: str) -> RunRecord:
    """The run of an id, or of its beginning. Raises `StoreError` where there is none, or several."""
    runs = await store.runs()
    return _only("run", id, [run for run in runs if run.id == id] or [run for run in runs if run.id.startswith(id)])


async def find_record(store: Store, id: str) -> RunRecord | Rollout:
    """The run or rollout of an id, or of its beginning. Raises `StoreError` where there is none, or several."""
    runs = await store.runs()
    exact = next((run for run in runs if run.id == id), None) or await store.rollout(id)
    if exact is not None:
        return exact
    found: list[RunRecord | Rollout] = [run for run in runs if run.id.startswith(id)]
    for run in runs:
        found += [rollout for rollout in await store.rollouts(run.id) if rollout.id.startswith(id)]
    return _only("run or rollout", id, found)


def _only(what: str, id: str, found: Sequence[T]) -> T:
    if len(found) == 1:
        return found[0]
    if not found:
        raise StoreError(f"there is no {what} {id!r} in this store; `agl runs` lists the runs")
    listed = "".join(f"\n  {_describe(record)}" for record in found[:MAX_LISTED])
    more = f"\n  … and {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
    raise StoreError(f"{id!r} is the beginning of {len(found)} ids; write more of it:{listed}{more}")


def _describe(record: RunRecord | Rollout) -> str:
    if isinstance(record, Rollout):
        return f"{record.id}  rollout of {record.run_id}, {record.collection}, task {record.task_id}"
    return f"{record.id}  run, {record.algorithm}, {record.status}"
