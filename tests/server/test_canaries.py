"""A server watches the canaries in its store: as runs end, as feedback comes, and when it begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
from store_records import a_live_run

from agentlightning import hookimpl
from agentlightning.plugins import plugins
from agentlightning.promotion.production import Arm, arm_of, begin, collection_of, in_production
from agentlightning.records import Prompt, Reward, Rollout, Task
from agentlightning.store import Recorded, open_store
from agentlightning.store.promotions import Promotion
from agentlightning_server.monitor import canaries
from agentlightning_server.remote import RemoteStore
from agentlightning_server.server import LightningServer

SECONDS = 30.0
"""How long is waited for what must come."""
NEW = Prompt(name="system", template="New.")


class Listener:
    """A plugin that is told."""

    def __init__(self) -> None:
        self.told: list[Promotion] = []

    @hookimpl
    def promotion_changed(self, promotion: Promotion) -> None:
        self.told.append(promotion)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    plugins()._manager.register(made)
    yield made
    plugins()._manager.unregister(made)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "PAUSE_SECONDS", 0.01)


@pytest.fixture
async def store(server: LightningServer) -> AsyncIterator[RemoteStore]:
    opened = RemoteStore(server.url)
    yield opened
    await opened.close()


def runs(canary: Promotion, count: int, outcomes: dict[Arm, float | None]) -> list[Recorded]:
    found = []
    for number in range(count):
        arm = arm_of(canary, f"{number:016x}")
        outcome = outcomes[arm]
        rollout = Rollout(
            id=f"{number:016x}",
            run_id="live",
            group_id="g",
            task_id="t",
            purpose="observe",
            attempt=1,
            collection=collection_of(canary, arm),
            status="succeeded",
            resources=canary.digests if arm == "canary" else {},
            rewards=[] if outcome is None else [Reward(name="right", value=outcome, at=float(number))],
            ended_at=float(number),
        )
        found.append(Recorded(task=Task(id="t", input="?"), rollout=rollout))
    return found


def a_canary() -> Promotion:
    return Promotion(target="live", run_id="run", resources=[NEW], status="canary", share=0.5)


async def ended(store: RemoteStore, revision: int) -> Promotion:
    (found,) = await store.wait_for_promotions("live", newer_than=revision, seconds=SECONDS)
    return found


async def told(listener: Listener) -> Promotion:
    for _ in range(int(SECONDS / 0.01)):
        if listener.told:
            break
        await asyncio.sleep(0.01)
    return listener.told[0]


async def test_a_worse_canary_is_rolled_back_as_its_runs_end_and_plugins_are_told(
    store: RemoteStore, listener: Listener
) -> None:
    canary = await begin(store, a_canary())
    await store.add_recorded(a_live_run(), runs(canary, 60, {"canary": 0.0, "control": 1.0}))
    found = await ended(store, 1)
    assert (found.status, found.reason[:23]) == ("rolled_back", "its outcomes are worse ")
    assert in_production(await store.promotions("live")) is None
    assert (await told(listener)).id == canary.id


async def test_a_better_one_is_promoted_as_feedback_comes(store: RemoteStore, server: LightningServer) -> None:
    canary = await begin(store, a_canary())
    recorded = runs(canary, 40, {"canary": None, "control": None})
    await store.add_recorded(a_live_run(), recorded)
    async with httpx.AsyncClient() as client:
        for one in recorded:
            thumbs = "up" if one.rollout.collection.startswith("canary/") else "down"
            body = {"rollout_id": one.rollout.id, "thumbs": thumbs}
            (await client.post(f"{server.url}/v1/feedback", json=body)).raise_for_status()
    found = await ended(store, 1)
    assert (found.status, found.reason[:24]) == ("promoted", "its outcomes are better ")


async def test_what_came_while_no_server_was_there_is_looked_at_when_one_begins(
    serve: Callable[..., LightningServer], tmp_path: object
) -> None:
    file = open_store(f"sqlite:///{tmp_path}/store.db")
    canary = await begin(file, a_canary())
    await file.add_recorded(a_live_run(), runs(canary, 60, {"canary": 0.0, "control": 1.0}))
    await file.close()
    store = RemoteStore(serve().url)
    assert (await ended(store, 1)).status == "rolled_back"
    await store.close()
