"""What a deployed agent is given, as it changes: promoted, superseded, rolled back; and which of its runs get what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from made_evaluations import make_run, prompt
from msgspec.structs import replace

from agentlightning.errors import PromotionError
from agentlightning.promotion.production import (
    arm_of,
    begin,
    conclude,
    going_canary,
    in_production,
    promotion_of,
    roll_back,
)
from agentlightning.records import Policy, Prompt
from agentlightning.store import Store, open_store
from agentlightning.store.promotions import Promotion

WEIGHTS = Policy(name="policy", model="m", base_url="http://a/v1", sampling={"temperature": 1.0})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


def a_promotion(text: str, **fields: object) -> Promotion:
    return Promotion(target="live", run_id=f"run {text}", resources=[prompt(text)], **fields)  # type: ignore[arg-type]


async def standing(store: Store) -> list[tuple[str, str]]:
    return [(one.run_id, one.status) for one in await store.promotions("live")]


async def test_what_is_promoted_takes_the_place_of_what_was_and_is_put_back_by_a_rollback(store: Store) -> None:
    for text in ("a", "b"):
        await begin(store, a_promotion(text))
    assert await standing(store) == [("run a", "superseded"), ("run b", "promoted")]
    rolled, now = await roll_back(store, "live", "users complain")
    assert (rolled.run_id, rolled.reason) == ("run b", "users complain")
    assert now is not None
    assert (now.run_id, now.reason) == ("run a", "again, as run run b was rolled back")
    assert await standing(store) == [("run a", "promoted"), ("run b", "rolled_back")]
    assert (await roll_back(store, "live", "as well"))[1] is None
    assert in_production(await store.promotions("live")) is None
    with pytest.raises(PromotionError, match="nothing is in production for live"):
        await roll_back(store, "live", "once more")


async def test_a_rollback_ends_a_canary_first_and_leaves_what_is_in_production(store: Store) -> None:
    await begin(store, a_promotion("a"))
    await begin(store, a_promotion("b", status="canary", share=0.1))
    assert await standing(store) == [("run a", "promoted"), ("run b", "canary")]
    with pytest.raises(PromotionError, match="run run b is a canary for live"):
        await begin(store, a_promotion("c"))
    await roll_back(store, "live", "by hand")
    assert await standing(store) == [("run a", "promoted"), ("run b", "rolled_back")]


async def test_a_canary_is_ended_once(store: Store) -> None:
    await begin(store, a_promotion("a"))
    canary = await begin(store, a_promotion("b", status="canary", share=0.1, evidence={"gate": 1}))
    ended = await conclude(store, canary, "promoted", "better", {"canary": 2})
    assert ended is not None
    assert (ended.status, ended.evidence) == ("promoted", {"gate": 1, "canary": 2})
    assert await conclude(store, canary, "rolled_back", "worse", {}) is None
    assert await standing(store) == [("run a", "superseded"), ("run b", "promoted")]


async def test_a_change_that_somebody_else_came_before_is_made_on_what_is_there_then(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    promotions, other = store.promotions, a_promotion("other")

    async def and_then_another(target: str | None = None) -> list[Promotion]:
        monkeypatch.undo()
        known = await promotions(target)
        await begin(store, other)
        return known

    monkeypatch.setattr(store, "promotions", and_then_another)
    mine = await begin(store, a_promotion("mine"))
    assert mine.previous == other.id
    assert await standing(store) == [("run other", "superseded"), ("run mine", "promoted")]


async def test_what_is_given_outlives_the_run_and_can_be_looked_up_by_the_digests_of_rollouts(store: Store) -> None:
    run = await make_run(store, "run", {0: (prompt("Old."), [0.0]), 1: (prompt("New."), [1.0])})
    given = await begin(store, await promotion_of(store, run, "live"))
    assert given.resources == [prompt("New.")]
    assert await store.resource("live", given.digests["system"]) == prompt("New.")
    empty = await make_run(store, "empty", {0: (None, [0.0])})
    with pytest.raises(PromotionError, match="published nothing"):
        await promotion_of(store, empty, "live")


async def test_weights_are_given_where_they_are_served_and_sampled_as_the_agent_asks(store: Store) -> None:
    run = await make_run(store, "run", {0: (WEIGHTS, [0.0])})
    nowhere = await promotion_of(store, run, "live")
    assert (nowhere.applied, nowhere.digests) == ([], {})
    served = await promotion_of(store, run, "live", endpoint="http://b/v1")
    (policy,) = served.applied
    assert isinstance(policy, Policy)
    assert (policy.base_url, policy.sampling) == ("http://b/v1", {})
    assert served.published == [WEIGHTS.digest]
    with pytest.raises(PromotionError, match="--endpoint where its weights are served"):
        await begin(store, replace(nowhere, status="canary", share=0.1))
    texts = await make_run(store, "texts", {0: (prompt("A."), [0.0])})
    with pytest.raises(PromotionError, match="trained no weights"):
        await promotion_of(store, texts, "live", endpoint="http://b/v1")


def test_a_share_of_the_runs_is_the_canarys_always_the_same_and_drawn_anew_for_each_canary() -> None:
    ids = [f"{number:016x}" for number in range(4000)]
    canary, other = (a_promotion("a", id=id, status="canary", share=0.25) for id in ("one", "two"))
    chosen = {id for id in ids if arm_of(canary, id) == "canary"}
    assert 900 < len(chosen) < 1100
    assert chosen == {id for id in ids if arm_of(canary, id) == "canary"}
    assert chosen < {id for id in ids if arm_of(replace(canary, share=0.5), id) == "canary"}
    assert 180 < len(chosen & {id for id in ids if arm_of(other, id) == "canary"}) < 320


def test_what_is_in_production_and_what_is_tried_are_told_apart() -> None:
    known = [a_promotion("a"), a_promotion("b", status="canary")]
    now, tried = in_production(known), going_canary(known)
    assert now is not None
    assert tried is not None
    assert (now.run_id, tried.run_id) == ("run a", "run b")
    assert isinstance(now.resources[0], Prompt)
    assert str(tried) == "live: run run b is a canary of 100%"
