"""The gate: what comes through, what does not, and what it says of what cannot be compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_evaluations import make_run, prompt

from agentlightning.config import PromoteConfig
from agentlightning.errors import ConfigError
from agentlightning.promotion.gate import judge, rules_of
from agentlightning.promotion.production import begin, in_production, promotion_of
from agentlightning.records import ModelChoice, Policy
from agentlightning.report import mcnemar_exact, sign_flip
from agentlightning.store import RunRecord, Store, open_store
from agentlightning.store.promotions import Promotion

OLD, NEW = prompt("Answer."), prompt("Think, then answer.")
BAD, GOOD = [0.0] * 20 + [1.0] * 20, [0.0] * 8 + [1.0] * 32


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    await opened.close()


async def promoted(store: Store, run: RunRecord) -> Promotion:
    promotion = await begin(store, await promotion_of(store, run, "live"))
    assert in_production(await store.promotions("live")) == promotion
    return promotion


async def test_a_run_whose_last_evaluation_is_better_than_its_first_comes_through(store: Store) -> None:
    run = await make_run(store, "better", {0: (OLD, BAD), 5: (NEW, GOOD)})
    verdict = await judge(store, run, None, rules_of(run))
    assert verdict.opens
    assert verdict.comparison is not None
    assert (verdict.comparison.n, verdict.comparison.p) == (40, mcnemar_exact(12, 0))
    assert verdict.reason.startswith("better: 0.800 after 0.500 on 40 held-out tasks (p ")
    assert verdict == await judge(store, run, None, rules_of(run))


async def test_one_that_is_equal_or_worse_does_not(store: Store) -> None:
    for id, outcomes in (("equal", BAD), ("worse", [0.0] * 32 + [1.0] * 8)):
        run = await make_run(store, id, {0: (OLD, BAD), 5: (NEW, outcomes)})
        verdict = await judge(store, run, None, rules_of(run))
        assert not verdict.opens
        assert verdict.reason.startswith("it is not shown to be better: "), verdict.reason


async def test_it_is_compared_with_what_is_in_production_not_with_its_own_beginning(store: Store) -> None:
    first = await make_run(store, "first", {0: (OLD, BAD), 5: (NEW, GOOD)})
    production = await promoted(store, first)
    other = await make_run(store, "other", {0: (OLD, BAD), 5: (prompt("Otherwise."), GOOD)})
    verdict = await judge(store, other, production, rules_of(other))
    assert (verdict.opens, verdict.against) == (False, "run first, which is in production")
    best = await make_run(store, "best", {0: (OLD, BAD), 5: (prompt("Best."), [1.0] * 40)})
    assert (await judge(store, best, production, rules_of(best))).opens


async def test_a_first_evaluation_of_what_is_in_production_is_compared_with(store: Store) -> None:
    first = await make_run(store, "first", {0: (OLD, BAD), 5: (NEW, GOOD)})
    production = await promoted(store, first)
    later = await make_run(store, "later", {0: (NEW, BAD), 5: (prompt("Best."), GOOD)})
    verdict = await judge(store, later, production, rules_of(later))
    assert verdict.opens
    assert verdict.against == "its own first evaluation, of what is in production"


async def test_what_is_not_worse_and_cheaper_comes_through(store: Store) -> None:
    outcomes = [0.0, 1.0] * 100
    cheap: dict[str, Any] = {"tokens": {0: 100, 5: 20}, "promote": {"margin": 0.05}}
    run = await make_run(store, "cheap", {0: (OLD, outcomes), 5: (NEW, outcomes)}, **cheap)
    verdict = await judge(store, run, None, rules_of(run))
    assert verdict.opens
    assert verdict.costs is not None
    assert (verdict.costs.unit, round(verdict.costs.before), round(verdict.costs.after)) == ("tokens of m", 101, 21)
    assert "not worse by more than 0.05, and cheaper" in verdict.reason
    strict = await judge(store, run, None, PromoteConfig(margin=0.001))
    assert not strict.opens
    assert "it is cheaper" in strict.reason
    assert "may be worse by 0.001" in strict.reason
    outside = await judge(store, run, None, PromoteConfig(margin=0.05, bounds=(0.0, 0.5)))
    assert "an outcome is outside of promote.bounds, 0 to 0.5" in outside.reason


async def test_dollars_are_compared_where_every_model_has_a_price(store: Store) -> None:
    dear = ModelChoice(name="model", version=0, model="large", input_price=10.0)
    cheap = ModelChoice(name="model", version=1, model="small", input_price=1.0)
    outcomes = [1.0] * 150
    run = await make_run(store, "cheap", {0: (dear, outcomes), 5: (cheap, outcomes)}, promote={"margin": 0.05})
    verdict = await judge(store, run, None, rules_of(run))
    assert verdict.opens
    assert verdict.costs is not None
    assert verdict.costs.unit == "dollars"
    assert verdict.costs.before == pytest.approx(10 * verdict.costs.after)


async def test_what_cannot_be_compared_is_told_with_what_to_do(store: Store) -> None:
    few = await make_run(store, "few", {0: (OLD, [0.0] * 10), 5: (NEW, [1.0] * 10)})
    verdict = await judge(store, few, None, rules_of(few))
    assert "only 10 held-out tasks were scored" in verdict.reason
    assert "promote.minimum is 30" in verdict.reason
    assert (await judge(store, few, None, PromoteConfig(minimum=10))).opens
    once = await make_run(store, "once", {5: (NEW, GOOD)})
    assert "name that run with --baseline" in (await judge(store, once, None, rules_of(once))).reason
    base = await make_run(store, "base", {0: (None, BAD)})
    assert (await judge(store, once, None, rules_of(once), baseline=base)).opens
    production = await promoted(store, once)
    again = await judge(store, once, production, rules_of(once))
    assert again.reason == "run once is in production already"
    unscored = await make_run(store, "unscored", {0: (OLD, [None] * 40), 5: (NEW, GOOD)})
    assert "only 0 held-out tasks" in (await judge(store, unscored, None, rules_of(unscored))).reason


async def test_tasks_that_were_not_held_out_do_not_count(store: Store) -> None:
    run = await make_run(store, "learned", {0: (OLD, BAD), 5: (NEW, GOOD)}, held_out=8)
    assert "only 8 held-out tasks" in (await judge(store, run, None, rules_of(run))).reason


async def test_what_was_published_after_the_last_evaluation_is_not_judged_by_it(store: Store) -> None:
    later = prompt("Never evaluated.")
    run = await make_run(store, "later", {0: (OLD, BAD), 5: (NEW, GOOD)}, publish_last=later)
    verdict = await judge(store, run, None, rules_of(run))
    assert not verdict.opens
    assert "is of something else than what it published last" in verdict.reason


async def test_weights_are_what_they_are_however_they_were_sampled(store: Store) -> None:
    before = Policy(name="policy", version=0, model="m", base_url="http://a/v1", sampling={"temperature": 1.0})
    after = Policy(name="policy", version=5, model="m", base_url="http://a/v1", sampling={"temperature": 0.0})
    run = await make_run(
        store,
        "weights",
        {0: (before, BAD), 5: (after, GOOD)},
        variant="greedy",
        publish_last=after.sampled_with(temperature=1.0),
    )
    assert (await judge(store, run, None, rules_of(run))).opens


async def test_a_threshold_that_makes_no_sense_is_refused(store: Store) -> None:
    for wrong in ({"alpha": 0.0}, {"bounds": [1, 0]}, {"margins": 1}):
        run = await make_run(store, f"run-{wrong}", {0: (OLD, [0.0])}, promote=wrong)
        with pytest.raises(ConfigError, match="promote"):
            rules_of(run)


def test_of_equal_resources_few_come_through() -> None:
    """The two tests that open the gate, over 1,000 runs on 100 tasks of each kind; each may take half of 5 %."""
    rng = np.random.default_rng(3)
    opened = {"binary": 0, "graded": 0, "cheaper": 0}
    for _ in range(1000):
        gained, lost = (int(rng.binomial(100, 0.12)) for _ in range(2))
        opened["binary"] += gained > lost and mcnemar_exact(gained, lost) <= 0.05
    for name in ("graded", "cheaper"):
        for _ in range(200):
            difference = rng.normal(size=13)
            opened[name] += 5 * bool(difference.mean() > 0 and sign_flip(difference) <= 0.05)
    assert all(count <= 40 for count in opened.values()), opened
