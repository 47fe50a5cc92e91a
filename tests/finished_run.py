"""A store with a finished run, as a training run leaves it, for the tests of what is shown of it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Policy, Purpose, Reward, Rollout, Span, Task, Usage
from agentlightning.store import Metric, RunRecord, Store, open_store

RUN = "calculator-1123-040506-ab12"
STARTED = 1_700_000_000.0
TASKS = [Task(id=f"task-{number}", input=f"What is {number} + 1?", expected=str(number + 1)) for number in range(8)]


async def fill(url: str, run_id: str = RUN, steps: int = 4) -> None:
    """Writes one run: `TASKS` evaluated before and after, and ``steps`` collections of two tasks, four times."""
    store = open_store(url)
    try:
        await store.open_run(
            RunRecord(
                id=run_id,
                name="calculator",
                algorithm="grpo",
                config={"algorithm": {"name": "grpo", "lr": 2e-5}, "train": ["*"]},
                results={"model": f"runs/{run_id}/model"},
                created_at=time.time(),
            )
        )
        await store.add_tasks(run_id, TASKS)
        await store.put_resource(run_id, Policy(name="policy", version=0, model="tiny", base_url="http://127.0.0.1:1"))
        rollouts = [_evaluated(run_id, 0, place, place < 2) for place in range(len(TASKS))]
        rollouts += [
            _trained(run_id, step, task, sample)
            for step in range(1, steps + 1)
            for task in (0, 1)
            for sample in range(4)
        ]
        rollouts += [_evaluated(run_id, steps, place, place != 3) for place in range(len(TASKS))]
        done = await _finish(store, rollouts)
        for rollout in done:
            store.add_spans(spans_of(rollout))
        for step in range(1, steps + 1):
            numbers = {"loss": 0.5 / step, "reward/mean": 0.2 * step}
            store.add_metrics([Metric(run_id=run_id, step=step, name=k, value=v) for k, v in numbers.items()])
            await store.put_resource(
                run_id, Policy(name="policy", version=step, model="tiny", base_url="http://127.0.0.1:1")
            )
        await store.close_run(run_id, "succeeded")
    finally:
        await store.close()


def rollout_id(run_id: str, collection: str, place: int, sample: int = 0) -> str:
    """16 digits, the same for the same place."""
    return hashlib.blake2b(f"{run_id}{collection}{place}{sample}".encode(), digest_size=8).hexdigest()


def spans_of(rollout: Rollout) -> list[Span]:
    """An agent that asks its model, calls a tool, and asks again with the result."""
    question = {"role": "user", "content": TASKS[int(rollout.task_id[-1])].input}
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "calculator", "arguments": '{"expression": "0 + 1"}'},
    }
    first = [{"role": "system", "content": "Use the calculator."}, question]
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    second = [*first, asked, {"role": "tool", "content": "1", "tool_call_id": "call_1"}]
    prompt = np.arange(1, 11, dtype=np.int32)
    wrote = np.array([21, 22, 23], np.int32)
    more = np.concatenate([prompt, wrote, np.array([31, 32], np.int32)])

    def span(index: int, kind: str, name: str, parent: int | None, **fields: Any) -> Span:
        ids = {"id": f"{rollout.id}-{index}", "parent_id": None if parent is None else f"{rollout.id}-{parent}"}
        times = {"started_at": STARTED + index, "ended_at": STARTED + index + 0.5}
        record = {"rollout_id": rollout.id, "attempt": rollout.attempt, "index": index, "kind": kind, "name": name}
        return Span(**{**ids, **times, **record, "agent": "model", **fields})

    def said(messages: list[Any], response: dict[str, Any], prompt_ids: Any, response_ids: Any) -> Generation:
        return Generation(
            messages=messages,
            response=response,
            model="tiny",
            finish_reason="stop",
            usage=Usage(input_tokens=len(prompt_ids), output_tokens=len(response_ids)),
            provenance="exact",
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            logprobs=np.full(len(response_ids), -0.25, np.float32),
            policy="policy",
            policy_version=3,
        )

    tool = {semconv.TOOL_CALL_ARGUMENTS: {"expression": "0 + 1"}, semconv.TOOL_CALL_RESULT: "1"}
    return [
        span(0, "agent", "graph", None, agent=None, attributes={semconv.STRUCTURE: "graph"}),
        span(1, "llm", "chat tiny", 0, generation=said(first, asked, prompt, wrote)),
        span(2, "tool", "calculator", 0, attributes=tool, failure=rollout.failure),
        span(3, "reward", "tool_used", 2, reward=Reward(name="tool_used", value=0.5, step=True, at=STARTED + 2)),
        span(4, "llm", "chat tiny", 0, generation=said(second, {"role": "assistant", "content": "1"}, more, wrote)),
    ]


def _evaluated(run_id: str, step: int, place: int, right: bool) -> Rollout:
    return _ended(run_id, "evaluate", step, place, 0, float(right))


def _trained(run_id: str, step: int, task: int, sample: int) -> Rollout:
    rollout = _ended(run_id, "train", step, task, sample, float(sample < step))
    if (step, task, sample) == (2, 0, 3):
        rollout.status, rollout.failure = "failed", Failure(type="tool_error", message="division by zero\nat line 3")
    if (step, task, sample) == (3, 1, 3):
        rollout.failed_attempts = [
            Failure(type="rate_limited", message="429 from the endpoint", fault="infrastructure")
        ]
    return rollout


def _ended(run_id: str, purpose: Purpose, step: int, place: int, sample: int, value: float) -> Rollout:
    collection = f"{purpose}/{step}"
    return Rollout(
        id=rollout_id(run_id, collection, place, sample),
        run_id=run_id,
        group_id=f"{collection}-{place}",
        task_id=TASKS[place].id,
        purpose=purpose,
        step=step,
        collection=collection,
        sample=sample,
        status="succeeded",
        resources={"policy": "a"},
        output={"messages": [{"role": "assistant", "content": "1"}]},
        rewards=[Reward(name="numeric_match", value=value, at=STARTED + 5)],
        started_at=STARTED,
        ended_at=STARTED + 5 + place,
    )


async def _finish(store: Store, rollouts: list[Rollout]) -> list[Rollout]:
    await store.enqueue([Rollout(**_work(rollout)) for rollout in rollouts])
    leased = await store.lease("test", ids=[rollout.id for rollout in rollouts], limit=len(rollouts))
    attempts = {rollout.id: rollout.attempt for rollout in leased}
    for rollout in rollouts:
        rollout.attempt = attempts[rollout.id]
        await store.finish(rollout)
    return rollouts


def _work(rollout: Rollout) -> dict[str, Any]:
    names = ("id", "run_id", "group_id", "task_id", "purpose", "step", "collection", "sample")
    return {name: getattr(rollout, name) for name in names}


def url_in(folder: Path) -> str:
    """The store of a test, where `agl` looks for it by default when it runs in ``folder``."""
    return f"sqlite:///{folder}/runs/agentlightning.db"
