"""A canary: what it is compared by, what becomes of it, how often that is wrong, and how soon it is right."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from made_evaluations import prompt
from msgspec.structs import replace

from agentlightning.betting import block_differences, log_e_values
from agentlightning.promotion.canary import compare_arms, decide, look, watch
from agentlightning.promotion.production import Arm, arm_of, begin, collection_of
from agentlightning.records import Failure, Reward, Rollout, Task
from agentlightning.store import Recorded, RunRecord, Store, open_store
from agentlightning.store.promotions import Promotion

CANARY = Promotion(
    id="c", target="live", run_id="run", resources=[prompt("New.")], status="canary", share=0.1, enough=400
)
LIVE = RunRecord(id="live", name="live", algorithm="live", status="live")
PROMISED = {0.1: 100, 0.3: 125}
"""By the canary's share: so many canary runs it takes at most, with 95 %, until 0.5 in place of 0.8 is noticed."""


def a_run(arm: Arm, number: int, outcome: float | None, *, canary: Promotion = CANARY, failed: bool = False) -> Rollout:
    at = float(number)
    return Rollout(
        id=f"{arm}{number}",
        run_id="live",
        group_id="g",
        task_id="t",
        purpose="observe",
        attempt=1,
        collection=collection_of(canary, arm),
        status="failed" if failed else "succeeded",
        failure=Failure(type="agent_error", message="no") if failed else None,
        resources=canary.digests if arm == "canary" else {},
        rewards=[] if outcome is None else [Reward(name="feedback", value=outcome, at=at)],
        ended_at=at,
    )


def runs(
    outcomes: dict[Arm, float], count: int, *, share: float = 0.5, fails: dict[Arm, float] | None = None
) -> dict[Arm, list[Rollout]]:
    """So many runs, whose outcomes and failures have these probabilities, drawn for one arm or the other."""
    rng = np.random.default_rng(0)
    found: dict[Arm, list[Rollout]] = {"canary": [], "control": []}
    for number in range(count):
        arm: Arm = "canary" if rng.random() < share else "control"
        failed = rng.random() < (fails or {}).get(arm, 0.0)
        found[arm].append(a_run(arm, number, float(rng.random() < outcomes[arm]), failed=bool(failed)))
    return found


def decided(found: dict[Arm, list[Rollout]], canary: Promotion = CANARY) -> tuple[str, str] | None:
    return decide(canary, compare_arms(canary, found["canary"], found["control"]))


def test_a_canary_whose_outcomes_are_worse_is_rolled_back() -> None:
    decision = decided(runs({"canary": 0.3, "control": 0.8}, 200))
    assert decision is not None
    assert decision[0] == "rolled_back"
    assert decision[1].startswith("its outcomes are worse (p ")


def test_one_that_fails_more_often_is_rolled_back_though_its_outcomes_are_the_same() -> None:
    decision = decided(runs({"canary": 0.8, "control": 0.8}, 200, fails={"canary": 0.4}))
    assert decision is not None
    assert decision[0] == "rolled_back"
    assert decision[1].startswith("it fails more often (p ")


def test_one_that_could_not_be_applied_has_failed() -> None:
    found = runs({"canary": 0.8, "control": 0.8}, 200)
    for run in found["canary"]:
        run.resources = {}
    seen = compare_arms(CANARY, found["canary"], found["control"])
    assert (seen.canary.failed, seen.canary.scored) == (len(found["canary"]), 0)
    assert decide(CANARY, seen) is not None


def test_one_whose_outcomes_are_better_is_promoted() -> None:
    decision = decided(runs({"canary": 0.8, "control": 0.3}, 200))
    assert decision is not None
    assert decision[0] == "promoted"
    assert decision[1].startswith("its outcomes are better (p ")


def test_one_that_is_not_found_worse_in_enough_runs_is_promoted() -> None:
    found = runs({"canary": 0.8, "control": 0.8}, 300)
    assert decided(found) is None
    decision = decided(found, replace(CANARY, enough=100))
    assert decision is not None
    assert decision[1].startswith(f"not found worse in {len(found['canary'])} runs: 0.")


def test_what_was_cancelled_or_has_no_outcome_yet_is_no_outcome() -> None:
    cancelled = a_run("canary", 1, 0.0)
    cancelled.status = "cancelled"
    seen = compare_arms(CANARY, [cancelled, a_run("canary", 2, None), a_run("canary", 3, 1.0)], [])
    assert (seen.canary.ended, seen.canary.scored, seen.canary.outcome) == (2, 1, 1.0)
    assert (seen.worse_p, seen.fails_p, seen.better_p) == (1.0, 1.0, 1.0)


def test_outcomes_count_within_their_bounds() -> None:
    found = {
        arm: [a_run(arm, 2 * number + (arm == "canary"), value) for number in range(60)]
        for arm, value in (("canary", -900.0), ("control", 50.0))
    }
    wide = replace(CANARY, bounds=(0.0, 100.0))
    decision = decided(found, wide)  # type: ignore[arg-type]
    assert decision is not None
    assert decision[0] == "rolled_back"


def test_equal_resources_are_rarely_called_better_or_worse_at_any_of_1000_looks() -> None:
    """Each of 400 canaries is looked at 1,000 times, after each canary run: for better, and for worse."""
    rng = np.random.default_rng(4)
    blocks = np.stack([_blocks(rng, 0.6, 0.6, 1000) for _ in range(400)])
    better = (log_e_values(blocks) >= np.log(1 / CANARY.alpha)).any(axis=1)
    worse = (log_e_values(-blocks) >= np.log(2 / CANARY.alpha)).any(axis=1)
    assert better.mean() <= CANARY.alpha
    assert worse.mean() <= CANARY.alpha / 2


@pytest.mark.parametrize(("share", "promised"), PROMISED.items())
def test_a_drop_from_80_to_50_percent_is_noticed_within_the_promised_number_of_canary_runs(
    share: float, promised: int
) -> None:
    rng = np.random.default_rng(5)
    blocks = np.stack([_blocks(rng, 0.5, 0.8, promised, share) for _ in range(400)])
    noticed = (log_e_values(-blocks) >= np.log(2 / CANARY.alpha)).any(axis=1)
    assert noticed.mean() >= 0.95


def _blocks(rng: np.random.Generator, canary: float, control: float, canaries: int, share: float = 0.3) -> np.ndarray:
    """The differences of so many canary runs; 0 where these made fewer blocks."""
    count = int(canaries / share * 1.5) + 100
    in_canary = rng.random(count) < share
    end = int(np.nonzero(np.cumsum(in_canary) == canaries)[0][0]) + 1
    outcomes = rng.random(end) < np.where(in_canary[:end], canary, control)
    found = block_differences(in_canary[:end], outcomes)
    return np.pad(found, (0, canaries - len(found)))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


async def test_a_worse_canary_is_rolled_back_by_whoever_looks_and_what_is_in_production_stays(store: Store) -> None:
    assert await watch(store, "live") is None
    before = await begin(store, Promotion(target="live", run_id="before", resources=[prompt("Old.")]))
    canary = await begin(store, CANARY)
    recorded = []
    for number in range(400):
        arm = arm_of(replace(canary, share=0.3), f"{number:016x}")
        recorded.append(a_run(arm, number, float(arm == "control"), canary=canary))
    task = Task(id="t", input="?")
    await store.add_recorded(LIVE, [Recorded(task=task, rollout=run) for run in recorded[:10]])
    assert await watch(store, "live") is None
    assert (await look(store, canary)).canary.ended > 0
    await store.add_recorded(LIVE, [Recorded(task=task, rollout=run) for run in recorded])
    ended = await watch(store, "live")
    assert ended is not None
    assert (ended.status, ended.evidence["canary"]["canary"]["outcome"]) == ("rolled_back", 0.0)
    assert await watch(store, "live") is None
    assert [one.status for one in await store.promotions("live")] == ["promoted", "rolled_back"]
    assert (await store.promotions("live"))[0].id == before.id
