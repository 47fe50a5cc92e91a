"""Records that the tests of the store write."""

from __future__ import annotations

import numpy as np

from agentlightning.records import Generation, Rollout, Span
from agentlightning.store import RunRecord

FOR_EVER = 1e9
"""Seconds of a lease that does not end by itself."""


def a_run(id: str = "run", **fields: object) -> RunRecord:
    return RunRecord(id=id, name="name", algorithm="grpo", **fields)  # type: ignore[arg-type]


def a_rollout(id: str, *, run_id: str = "run", collection: str = "train/1") -> Rollout:
    return Rollout(
        id=id, run_id=run_id, group_id="group", task_id="task", purpose="train", step=1, collection=collection
    )


def a_span(rollout_id: str, index: int = 0, *, attempt: int = 1, tokens: int = 640) -> Span:
    rng = np.random.default_rng(index)
    return Span(
        id=f"{rollout_id}-{attempt}-{index}",
        rollout_id=rollout_id,
        attempt=attempt,
        index=index,
        kind="llm",
        name="chat",
        generation=Generation(
            messages=[{"role": "user", "content": "two and two?"}],
            provenance="exact",
            prompt_ids=rng.integers(0, 49152, tokens).astype(np.int32),
            response_ids=rng.integers(0, 49152, 128).astype(np.int32),
            logprobs=-rng.random(128).astype(np.float32),
        ),
    )
