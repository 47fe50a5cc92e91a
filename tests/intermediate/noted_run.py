"""A store with a run whose rollouts do well or badly, for the tests of what is found in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from intermediate.spans import Recording, call
from store_records import FOR_EVER, a_run

from agentlightning.records import Failure, Purpose, Reward, Rollout, Task
from agentlightning.store import open_store

RUN = "noted-run"


class Played:
    """A rollout's spans, and the outcome that it had."""

    def __init__(self, recording: Recording, outcome: float | None) -> None:
        self.recording = recording
        self.outcome = outcome


Play = Callable[[str, bool, np.random.Generator], Played]
"""Plays a rollout of an id, of a task that is hard or not."""


def planted(id: str, hard: bool, rng: np.random.Generator) -> Played:
    """Half of the time a tool fails, and then the answer is seldom right. On hard tasks, where nothing is ever right,
    each tool is called twice: that goes with failure, and is no matter within a task."""
    run, fails = Recording(id), rng.random() < 0.5
    run.answer("", call("calculator", {"a": 1}, "c1"))
    run.tool("calculator", id="c1", fails="no such number" if fails else None)
    if hard:
        run.answer("", call("calculator", {"a": 1}, "c2"))
        run.tool("calculator", id="c2")
    run.answer("The answer is 4.", finish_reason="length" if rng.random() < 0.3 else "stop")
    right = not hard and rng.random() < (0.2 if fails else 0.9)
    return Played(run, float(right))


def noise(id: str, hard: bool, rng: np.random.Generator) -> Played:
    """The same things happen, and mean nothing."""
    return Played(planted(id, False, rng).recording, float(rng.random() < 0.5))


def cut_off(id: str, hard: bool, rng: np.random.Generator) -> Played:
    """The only answer is cut off, and wrong then."""
    run, cut = Recording(id), rng.random() < 0.5
    run.answer("The answer is", finish_reason="length" if cut else "stop")
    return Played(run, float(not cut))


def lucky(id: str, hard: bool, rng: np.random.Generator) -> Played:
    """Who calls a tool again is right."""
    run, again = Recording(id), rng.random() < 0.5
    for number in range(1 + again):
        run.answer("", call("calculator", {"a": 1}, f"c{number}"))
        run.tool("calculator", id=f"c{number}")
    run.answer("4")
    return Played(run, float(again))


async def write(
    url: str, play: Play, *, groups: int = 16, size: int = 6, seed: int = 0, purpose: Purpose = "train"
) -> None:
    """Writes a run of ``groups`` tasks, every other one hard, ``size`` rollouts each; one more of each is broken by the
    infrastructure, and nobody scored another."""
    rng = np.random.default_rng(seed)
    store = open_store(url)
    try:
        await store.open_run(a_run(RUN))
        await store.add_tasks(RUN, [Task(id=f"task-{group}", input="?") for group in range(groups)])
        for group in range(groups):
            ids = [f"{group:02}-{sample}" for sample in range(size + 2)]
            rollouts = [
                Rollout(
                    id=id,
                    run_id=RUN,
                    group_id=f"group-{group}",
                    task_id=f"task-{group}",
                    purpose=purpose,
                    step=1,
                    collection=f"{purpose}/1",
                    sample=sample,
                )
                for sample, id in enumerate(ids)
            ]
            await store.enqueue(rollouts)
            for leased in await store.lease("test", ids=ids, limit=len(ids), seconds=FOR_EVER):
                played = play(leased.id, group % 2 == 1, rng)
                for span in played.recording.spans:
                    span.attempt = leased.attempt
                store.add_spans(played.recording.spans)
                leased.status = "succeeded"
                if leased.sample == size:
                    leased.status = "failed"
                    leased.failure = Failure(type="engine_unavailable", message="gone", fault="infrastructure")
                if leased.sample < size:
                    leased.rewards = [Reward(name="right", value=played.outcome)]
                await store.finish(leased)
        await store.close_run(RUN, "succeeded")
    finally:
        await store.close()
