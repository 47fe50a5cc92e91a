"""Work orders: what a rollout ran with can be looked up, and a collection is never another one's rollouts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from doing import Doing

from agentlightning import Trainer
from agentlightning.errors import AlgorithmError
from agentlightning.records import ModelChoice, Policy, Prompt, Rollout
from agentlightning.store import Store, open_store
from agentlightning.store.sqlite import SQLiteStore
from agentlightning.training_rows import Group

TASKS = [{"id": f"t{number}", "input": number, "expected": number} for number in range(4)]
POLICY = Policy(name="policy", version=1, model="m", base_url="http://127.0.0.1:1/v1", sampling={"temperature": 1.0})

Body = Callable[[Any], Awaitable[None]]
Train = Callable[..., str]


def echo(number: int) -> int:
    return number


def right(rollout: Any, task: Any) -> float:
    return float(rollout.output == task.expected)


@pytest.fixture
def train(tmp_path: Path) -> Train:
    def train(body: Body, agent: Any = echo, *, resume: str | None = None, store: Store | None = None) -> str:
        trainer = Trainer(
            agent,
            TASKS,
            right,
            Doing(body),
            held_out=TASKS[:2],
            store=store or url_of(tmp_path),
            directory=tmp_path / "runs",
            name="orders",
        )
        return trainer.fit(resume=resume).run_id

    return train


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/store.db"


async def collected(run: Any, **options: Any) -> list[Group]:
    return [group async for group in run.collect(options.pop("tasks", run.tasks[:2]), step=1, **options)]


def ids(groups: list[Group]) -> list[str]:
    return [ran.rollout.id for group in groups for ran in group.rollouts]


async def ran_with(folder: Path, run_id: str, **chosen: Any) -> list[Any]:
    """What each rollout's record names, looked up."""
    store = open_store(url_of(folder))
    try:
        rollouts = await store.rollouts(run_id, **chosen)
        return [
            {name: await store.resource(run_id, digest) for name, digest in rollout.resources.items()}
            for rollout in rollouts
        ]
    finally:
        await store.close()


async def test_sampled_and_greedy_evaluations_ran_with_different_things_and_both_can_be_looked_up(
    tmp_path: Path,
) -> None:
    greedy = POLICY.sampled_with(temperature=0.0)

    async def body(run: Any) -> None:
        await run.publish(POLICY)
        await run.evaluate(step=0, variant="sampled")
        await run.evaluate(step=0, variant="greedy", resources=[greedy])

    run_id = await fit(tmp_path, body)
    assert greedy.digest != POLICY.digest
    assert await ran_with(tmp_path, run_id) == [{"policy": POLICY}] * 2 + [{"policy": greedy}] * 2


async def test_what_one_collection_was_given_over_the_published_can_be_looked_up(tmp_path: Path) -> None:
    published = Prompt(name="prompt", template="Be brief.")
    candidate = Prompt(name="prompt", template="Think first.")

    async def body(run: Any) -> None:
        await run.publish(published)
        await collected(run, resources=[candidate])
        await collected(run)

    run_id = await fit(tmp_path, body)
    assert await ran_with(tmp_path, run_id) == [{"prompt": candidate}] * 2 + [{"prompt": published}] * 2


async def fit(folder: Path, body: Body) -> str:
    trainer = Trainer(
        echo, TASKS, right, Doing(body), held_out=TASKS[:2], store=url_of(folder), directory=folder / "runs"
    )
    return (await trainer.fit_async()).run_id


def test_a_rollout_is_queued_when_all_that_it_names_is_stored(train: Train, tmp_path: Path) -> None:
    looked_up: list[Any] = []

    class Watched(SQLiteStore):
        async def enqueue(self, rollouts: Any) -> list[Rollout]:
            for rollout in rollouts:
                looked_up.extend([await self.resource(rollout.run_id, it) for it in rollout.resources.values()])
            return await super().enqueue(rollouts)

    async def body(run: Any) -> None:
        await run.publish(POLICY)
        await collected(run, resources=[ModelChoice(name="model", model="small")])

    train(body, store=Watched(tmp_path / "store.db"))
    assert looked_up == [POLICY, ModelChoice(name="model", model="small")] * 2


def test_a_digest_is_that_of_the_content_wherever_it_is_served() -> None:
    moved = Policy(name="policy", version=1, model="m", base_url="http://127.0.0.1:2/v1", sampling={"temperature": 1.0})
    assert moved.digest == POLICY.digest
    assert len({POLICY.digest, POLICY.sampled_with(top_p=0.9).digest, POLICY.sampled_with(top_p=0.8).digest}) == 3
    assert POLICY.sampled_with(top_p=0.9, top_k=5).digest == POLICY.sampled_with(top_k=5).sampled_with(top_p=0.9).digest


def test_two_collections_of_one_step_are_two(train: Train) -> None:
    found: list[list[str]] = []

    async def body(run: Any) -> None:
        found.extend([ids(await collected(run)), ids(await collected(run)), ids(await collected(run, group_size=2))])

    train(body)
    first, second, third = found
    assert len({*first, *second, *third}) == 2 + 2 + 4


def test_a_known_key_gives_what_was_recorded(train: Train) -> None:
    calls: list[int] = []
    found: list[list[str]] = []

    async def body(run: Any) -> None:
        found.extend([ids(await collected(run, key="probe")), ids(await collected(run, key="probe"))])

    train(body, lambda number: calls.append(number))
    assert found[0] == found[1]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({"group_size": 2}, "another size"),
        ({"swapped": True}, "other tasks"),
        ({"resources": [Prompt(name="prompt", template="Hello.")]}, "other resources (prompt)"),
        ({"step": 2}, "another step"),
    ],
)
def test_a_known_key_with_anything_else_is_refused(train: Train, again: dict[str, Any], said: str) -> None:
    async def body(run: Any) -> None:
        await collected(run, key="probe")
        tasks = run.tasks[1:3] if again.pop("swapped", False) else run.tasks[:2]
        with pytest.raises(AlgorithmError, match="the collection 'probe' of this run was asked for before") as caught:
            async for _ in run.collect(tasks, **{"step": 1, "key": "probe", **again}):
                pass
        assert said in str(caught.value)

    train(body)


def test_groups_come_in_the_order_of_their_tasks_whichever_ends_first(train: Train) -> None:
    order: list[str] = []

    def agent(number: int) -> int:
        time.sleep(0.2 if number == 0 else 0.0)
        return number

    async def body(run: Any) -> None:
        order.extend([group.task.id for group in await collected(run, tasks=run.tasks, group_size=2)])

    train(body, agent)
    assert order == ["t0", "t1", "t2", "t3"]


def test_a_run_that_goes_on_finds_each_of_its_collections_again(train: Train, tmp_path: Path) -> None:
    calls: list[int] = []
    found: list[list[str]] = []
    crash = [True]

    def agent(number: int) -> int:
        calls.append(number)
        return number

    async def body(run: Any) -> None:
        found.append([*ids(await collected(run)), *ids(await collected(run))])
        if crash.pop():
            raise RuntimeError("crashed")

    with pytest.raises(RuntimeError, match="crashed"):
        train(body, agent)
    crash.append(False)
    (run_id,) = {path.name for path in (tmp_path / "runs").iterdir()}
    train(body, agent, resume=run_id)
    assert found[0] == found[1]
    assert len(calls) == 4
