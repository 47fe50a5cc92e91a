"""What a rollout costs beside its agent, and what of it is reading it back: ``python tests/bench/rollouts.py``.

A run reads what it learns from in its store. Here that is paired, in one process, with a store that hands out the
objects that it was given: rounds of both take turns, and the median of their differences counts.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentlightning import Algorithm, Trainer
from agentlightning.algorithm import Run
from agentlightning.recording import current
from agentlightning.records import Generation, Rollout, Span
from agentlightning.store.sqlite import SQLiteStore

ROLLOUTS = 500
ROUNDS = 7
CALLS = 3
TOKENS = 600
"""Of each call's prompt; its answer has a tenth."""


class CollectOnce(Algorithm):
    """Runs every task once."""

    async def run(self, run: Run) -> None:
        groups = [group async for group in run.collect(run.tasks, group_size=1, step=1)]
        assert sum(len(group.rollouts[0].spans) for group in groups) == ROLLOUTS * (CALLS + 1)


class Remembering(SQLiteStore):
    """Writes everything, and reads nothing back that it was given as an object."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: dict[str, list[Span]] = {}
        self.ended: dict[str, Rollout] = {}

    def add_spans(self, spans: Sequence[Span]) -> None:
        for span in spans:
            self.written.setdefault(span.rollout_id, []).append(span)
        super().add_spans(spans)

    async def finish(self, rollout: Rollout) -> bool:
        self.ended[rollout.id] = rollout
        return await super().finish(rollout)

    async def rollout_with_spans(self, rollout_id: str) -> tuple[Rollout, list[Span]]:
        return self.ended.pop(rollout_id), self.written.pop(rollout_id)


def agent(text: str) -> str:
    recorder = current()
    assert recorder is not None
    for _ in range(CALLS):
        call = recorder.start("llm", "chat", agent="solver")
        call.generation = Generation(
            messages=[{"role": "user", "content": text * 20}],
            response={"role": "assistant", "content": text * 5},
            provenance="exact",
            prompt_ids=np.arange(TOKENS, dtype=np.int32),
            response_ids=np.arange(TOKENS // 10, dtype=np.int32),
            logprobs=np.zeros(TOKENS // 10, np.float32),
            policy="policy",
            policy_version=1,
        )
        recorder.end(call)
    return text


def same(rollout, task) -> float:
    return float(rollout.output == task.input)


def tasks(count: int) -> list[dict[str, str]]:
    return [{"id": f"task-{number}", "input": f"say {number}"} for number in range(count)]


def measure(kind: type[SQLiteStore]) -> tuple[float, float]:
    """Milliseconds of wall time and of CPU that one rollout takes."""
    with tempfile.TemporaryDirectory() as folder:
        store = kind(Path(folder) / "bench.db")
        trainer = Trainer(
            agent, tasks(ROLLOUTS), same, CollectOnce({}), held_out=tasks(1), store=store, directory=folder
        )
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.fit()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        asyncio.run(store.close())
    return 1000 * wall / ROLLOUTS, 1000 * cpu / ROLLOUTS


if __name__ == "__main__":
    measure(SQLiteStore)
    pairs = [(measure(SQLiteStore), measure(Remembering)) for _ in range(ROUNDS)]
    for place, name in enumerate(("wall", "CPU")):
        read = statistics.median(first[place] for first, _ in pairs)
        differences = sorted(first[place] - second[place] for first, second in pairs)
        print(
            f"{name}: {read:.2f} ms a rollout of {CALLS} calls; of that, reading it back "
            f"{statistics.median(differences):+.2f} ms ({differences[0]:+.2f} … {differences[-1]:+.2f})"
        )
