"""What a run of a comparison cost, and whether what it made is cheaper to use."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_evaluations import make_run

from agentlightning.config import Config, PromoteConfig
from agentlightning.levers.accounts import Cost, account_of
from agentlightning.levers.rows import row_of, with_cheaper
from agentlightning.levers.runs import Runs, Work
from agentlightning.levers.sections import BASELINE, Lever
from agentlightning.records import ModelChoice, Prompt, Reward
from agentlightning.store import Checkpoint, Metric, RunRecord, open_store


async def test_a_run_is_charged_for_every_attempt_and_for_what_its_rewards_asked(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/one.db")
    choice = ModelChoice(name="model", model="m", input_price=2.0)
    run = await make_run(store, "one", {0: (choice, [1.0] * 2), 3: (choice, [1.0] * 2)}, tokens={0: 10, 3: 100})
    await store.add_rewards(
        "one-3-0", 1, [Reward(name="judge", value=1.0, metrics={"calls": 1, "input_tokens": 7, "dollars": 0.5})]
    )
    account = await account_of(store, run, prices={}, seconds=4.0)
    await store.close()
    assert account.learning == Cost()
    tokens = 10 + 11 + 100 + 101
    assert account.evaluation.rollouts == 4
    assert (account.evaluation.calls, account.evaluation.input_tokens) == (5, tokens + 7)
    assert account.evaluation.dollars == pytest.approx(tokens * 2.0 / 1e6 + 0.5)
    assert (account.task_tokens, account.seconds) == (100.5, 4.0)
    assert account.task_dollars == pytest.approx(201 / 1e6)


async def test_calls_without_a_price_are_told_apart_and_take_that_of_the_config(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/one.db")
    run = await make_run(store, "one", {1: (None, [1.0] * 3)}, tokens={1: 10})
    unknown = await account_of(store, run, prices={}, seconds=0.0)
    known = await account_of(store, run, prices={"m": (1.0, 9.0)}, seconds=0.0)
    await store.close()
    assert (unknown.evaluation.unpriced, unknown.evaluation.dollars, unknown.task_dollars) == (3, 0.0, None)
    assert (known.evaluation.unpriced, known.evaluation.dollars) == (0, pytest.approx(33 / 1e6))


async def test_a_session_that_was_killed_counts_to_the_last_that_its_run_recorded(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/one.db")
    await make_run(store, "levels/one", {1: (None, [1.0])})
    record = await store.open_run(RunRecord(id="all", name="levels/compare", algorithm="compare"))
    store.add_metrics([Metric(run_id="levels/one", step=1, name="loss", value=0.5, at=1030.0)])
    work = {"one": {"sessions": [{"began": 1000.0, "ended": None}], "run_id": "levels/one"}}
    await store.put_checkpoint(Checkpoint(run_id="all", step=3, state={"work": work}))
    runs = Runs(store, record)
    await runs.restore()
    await store.close()
    assert runs.work["one"].seconds == 30
    assert runs.work["one"].done


async def test_one_that_is_no_worse_and_cheaper_to_use_is_found_by_the_test_of_the_gate(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/one.db")
    right = [1.0, 0.0] * 40
    old, new = Prompt(name="system", template="Long."), Prompt(name="system", template="Short.")
    await make_run(store, "levels/baseline", {0: (old, right)}, tokens={0: 100})
    await make_run(store, "levels/small", {0: (old, right), 1: (new, right)}, tokens={0: 100, 1: 40})
    record = await store.open_run(RunRecord(id="all", name="levels/compare", algorithm="compare"))
    runs = Runs(store, record)
    runs.work = {name: Work(run_id=f"levels/{name}", done=True) for name in (BASELINE, "small")}
    lever = Lever(name="small", config=Config(agent="a", tasks="t", algorithm={"name": "selection"}))
    row = await row_of(store, runs, lever, {})
    assert not row.is_better(0.05)
    found = await with_cheaper(store, runs, row, PromoteConfig(margin=0.2), alpha=0.05)
    strict = await with_cheaper(store, runs, row, PromoteConfig(margin=1e-4), alpha=0.05)
    await store.close()
    assert found.cheaper == "not worse by more than 0.2, and cheaper to use: 41 after 101 tokens of m a task"
    assert strict.cheaper is None
