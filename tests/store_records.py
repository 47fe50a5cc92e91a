"""Records that the tests of the store write."""

from __future__ import annotations

from typing import Any

import numpy as np

from agentlightning.records import Failure, Generation, Rollout, Span, Task
from agentlightning.semconv import REQUEST_MODEL, TOOL_NAME
from agentlightning.store import Recorded, RunRecord
from agentlightning.store.promotions import Promotion

FOR_EVER = 1e9
"""Seconds of a lease that does not end by itself."""


def a_run(id: str = "run", **fields: object) -> RunRecord:
    return RunRecord(id=id, name="name", algorithm="grpo", **fields)  # type: ignore[arg-type]


def a_live_run(id: str = "live", **fields: object) -> RunRecord:
    return RunRecord(id=id, name=id, algorithm="live", status="live", **fields)  # type: ignore[arg-type]


def a_recorded(id: str, *, run_id: str = "live") -> Recorded:
    rollout = Rollout(
        id=id, run_id=run_id, group_id="group", task_id="task", purpose="observe", attempt=1, status="succeeded"
    )
    return Recorded(task=Task(id="task", input="two and two?"), rollout=rollout, spans=[a_span(id, tokens=8)])


def a_promotion(target: str = "live", **fields: object) -> Promotion:
    return Promotion(target=target, run_id="run", **fields)  # type: ignore[arg-type]


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


def a_step(
    rollout_id: str,
    index: int,
    kind: Any,
    used: str,
    ended_at: float | None,
    type: str | None,
    *,
    fault: Any = "agent",
    failure: Failure | None = None,
) -> Span:
    """A step of the agent ``solver`` that used a tool or a model; ``type`` is that of its failure."""
    if type is not None and failure is None:
        failure = Failure(type=type, message=f"{used} failed", fault=fault)
    return Span(
        id=f"{rollout_id}-1-{index}",
        rollout_id=rollout_id,
        index=index,
        kind=kind,
        name=f"{kind} {used}",
        agent="solver",
        ended_at=ended_at,
        attributes={"tool": {TOOL_NAME: used}, "llm": {REQUEST_MODEL: used}}.get(kind, {}),
        failure=failure,
    )
