"""Runs in a store with the evaluations that a test gives them, for the tests of what is promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agentlightning.records import AnyResource, Generation, Prompt, Reward, Rollout, Span, Task, Usage
from agentlightning.store import RunRecord, Store


def task(number: int, **fields: Any) -> Task:
    return Task(id=f"t{number}", input=f"question {number}", **fields)


def prompt(text: str) -> Prompt:
    return Prompt(name="system", template=text)


async def make_run(
    store: Store,
    id: str,
    evaluations: Mapping[int, tuple[AnyResource | None, Sequence[float | None]]],
    *,
    tokens: Mapping[int, int] | None = None,
    model: str = "m",
    variant: str = "",
    promote: Mapping[str, Any] | None = None,
    held_out: int | None = None,
    publish_last: AnyResource | None = None,
) -> RunRecord:
    """A run that was evaluated after each step given, with a resource, with the outcomes given task by task; what it
    had last is published, or ``publish_last``. ``tokens`` are what each call of a step took."""
    count = max(len(outcomes) for _, outcomes in evaluations.values())
    tasks = [task(number) for number in range(count)]
    ids = [one.id for one in tasks][:held_out]
    run = RunRecord(id=id, name=id, algorithm="any", held_out=ids, config={"promote": dict(promote or {})})
    await store.open_run(run)
    await store.add_tasks(id, tasks)
    for step, (resource, outcomes) in evaluations.items():
        if resource is not None:
            await store.put_resource(id, resource)
            run.resources[resource.name] = resource.digest
        rollouts = [
            Rollout(
                id=f"{id}-{step}-{number}",
                run_id=id,
                group_id=f"{step}-{number}",
                task_id=f"t{number}",
                purpose="evaluate",
                step=step,
                variant=variant,
                collection=f"evaluate/{step}",
                resources={} if resource is None else {resource.name: resource.digest},
            )
            for number in range(len(outcomes))
        ]
        await store.enqueue(rollouts)
        leased = await store.lease("w", run_id=id, limit=len(rollouts), seconds=1e9)
        for number, (rollout, outcome) in enumerate(zip(leased, outcomes, strict=True)):
            rollout.status = "succeeded"
            rollout.rewards = [Reward(name="score", value=outcome)]
            usage = Usage(input_tokens=(tokens or {}).get(step, 10) + number % 3)
            call = Generation(model=model, usage=usage)
            store.add_spans([Span(rollout_id=rollout.id, kind="llm", name="chat", ended_at=1.0, generation=call)])
        await asyncio.gather(*map(store.finish, leased))
    if publish_last is not None:
        await store.put_resource(id, publish_last)
        run.resources[publish_last.name] = publish_last.digest
    await store.update_run(run)
    await store.close_run(id, "succeeded")
    found = await store.run(id)
    assert found is not None
    return found
