"""Algorithms compared on one budget: the same terms for all, and what the command prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from msgspec.structs import replace

from agentlightning.cli import main
from agentlightning.cli.levers_plot import draw_levers
from agentlightning.config import load_config
from agentlightning.errors import AlgorithmError, ConfigError, PluginError
from agentlightning.levers.accounts import known_prices
from agentlightning.levers.comparison import Comparing, LeverComparison
from agentlightning.levers.sections import levers_of
from agentlightning.store import RunRecord, open_store
from agentlightning.trainer import Trainer

CODE = '''
"""An agent that is right as often as its prompt says, and algorithms that change that."""
import asyncio
import os
import pathlib
import random

import msgspec

import agentlightning as agl
from agentlightning import Algorithm
from agentlightning.errors import AlgorithmError, BudgetError
from agentlightning.records import Prompt


async def agent(number):
    level = float(agl.prompt("level", "0.3"))
    return float(random.Random(number).random() < level)


def right(rollout, task):
    return rollout.output


def unknown(rollout, task):
    return None


class Tune(Algorithm):
    class Config(msgspec.Struct, forbid_unknown_fields=True):
        level: float = 0.9
        batch: int = 8

    async def run(self, run):
        await run.evaluate(step=0)
        step = 0
        for step in range(1, 4):
            try:
                async for _ in run.collect(run.batches(self.config.batch)(step), step=step):
                    pass
            except BudgetError as error:
                step -= 1
                run.stopped(step=step, reason=str(error))
                break
            if pathlib.Path("kill").exists() and self.config.level == 0.9:
                os.kill(os.getpid(), int(pathlib.Path("kill").read_text()))
                await asyncio.Event().wait()
            if pathlib.Path("broken").exists() and self.config.level == 0.8:
                raise AlgorithmError("the loss exploded")
        if step:
            await run.publish(Prompt(name="level", agents=(), template=str(self.config.level)))
        await run.evaluate(step=step)


class Planning(Tune):
    """Plans with a budget of its own, as selections do."""

    class Config(Tune.Config, forbid_unknown_fields=True):
        budget: int | None = None

    async def run(self, run):
        run.result("planned", str(self.config.budget))
        await super().run(run)
'''
TASKS = [{"id": f"t{number}", "input": number} for number in range(20)]
HELD_OUT = [{"id": f"h{number}", "input": 1000 + number} for number in range(40)]
ALGORITHMS = {
    "best": {"name": "levels:Tune", "level": 0.95},
    "near": {"name": "levels:Planning", "level": 0.9, "batch": 3},
    "little": {"name": "levels:Tune", "level": 0.3},
    "broken": {"name": "levels:Tune", "level": 0.8},
    "large": {"name": "levels:Tune", "batch": 50},
}
BUDGET = 20


def make_project(folder: Path, **changes: Any) -> Path:
    (folder / "levels.py").write_text(CODE)
    for name, rows in (("train", TASKS), ("held_out", HELD_OUT)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = {
        "agent": "levels:agent",
        "tasks": {"train": str(folder / "train.jsonl"), "held_out": str(folder / "held_out.jsonl")},
        "reward": "levels:right",
        "algorithm": {"name": "levels:Tune"},
        "compare": {"algorithms": ALGORITHMS},
        "store": f"sqlite:///{folder}/store.db",
        "directory": str(folder / "runs"),
        "name": "levels",
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "config.yaml"


def settings(folder: Path, **changes: Any) -> Any:
    return load_config(make_project(folder, **changes))


@pytest.fixture(autouse=True)
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("levels", None)


async def runs_of(folder: Path) -> list[RunRecord]:
    store = open_store(f"sqlite:///{folder}/store.db?mode=ro")
    try:
        return await store.runs()
    finally:
        await store.close()


# The comparison.


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, LeverComparison, list[RunRecord]]]:
    """One comparison: an algorithm that gains, one that gains about as much for less, one that gains nothing, one that
    fails, and one whose first step is more than the budget."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        (folder / "broken").touch()
        found = Comparing(settings(folder), budget=BUDGET).run()
        yield folder, found, asyncio.run(runs_of(folder))
        sys.modules.pop("levels", None)


Compared = tuple[Path, LeverComparison, list[RunRecord]]


def test_each_lever_is_a_run_of_its_own_on_the_same_terms(compared: Compared) -> None:
    _, found, runs = compared
    assert [run.name for run in runs] == [
        "levels/compare",
        "levels/baseline",
        *(f"levels/{name}" for name in ALGORITHMS),
    ]
    levers = runs[2:]
    assert {run.config["budget"] for run in levers} == {BUDGET}
    for key in ("tasks", "held_out", "reward", "agent"):
        assert len({json.dumps(run.config[key], default=str) for run in levers}) == 1
    assert len({(run.seed, tuple(run.held_out)) for run in runs[1:]}) == 1
    assert [row.run_id for row in found.rows] == [run.id for run in levers]
    assert runs[0].results["best"] == levers[0].id


def test_each_is_compared_with_one_baseline_on_the_same_held_out_tasks(compared: Compared) -> None:
    _, found, _ = compared
    best, near, little, _, _ = found.rows
    assert best.comparison is not None
    assert near.comparison is not None
    assert little.comparison is not None
    assert best.comparison.before == near.comparison.before == found.baseline
    assert best.comparison.n == len(HELD_OUT)
    assert best.is_better(0.05)
    assert near.is_better(0.05)
    assert not little.is_better(0.05)
    assert best.p is not None
    assert best.p > best.comparison.p


def test_the_budget_binds_each(compared: Compared) -> None:
    _, found, _ = compared
    used = {row.name: row.account.learning.rollouts for row in found.rows if row.account is not None}
    assert used == {"best": 16, "near": 9, "little": 16, "broken": 8, "large": 0}
    assert max(used.values()) <= BUDGET


def test_an_algorithm_that_plans_with_a_budget_is_told_that_of_all(compared: Compared) -> None:
    near = next(run for run in compared[2] if run.name == "levels/near")
    assert near.results["planned"] == str(BUDGET)


def test_one_that_fails_or_learns_nothing_is_a_row_with_its_reason(compared: Compared) -> None:
    rows = {row.name: row for row in compared[1].rows}
    assert (rows["broken"].reason, rows["broken"].comparison) == ("failed: the loss exploded", None)
    assert str(rows["large"].reason).startswith(
        "nothing was learned (after step 0: the collection 'train/1' asks for 50"
    )
    assert rows["large"].p is None


def test_a_tie_is_called_a_tie(compared: Compared) -> None:
    recommended = compared[1].recommendation
    assert recommended.better == ["best", "near"] == recommended.tied
    assert recommended.lever in ("best", "near")
    assert "are not shown to differ" in recommended.reason


async def test_going_on_tries_again_what_failed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    config = settings(tmp_path, compare={"algorithms": {name: ALGORITHMS[name] for name in ("near", "broken")}})
    first = await Comparing(config, budget=BUDGET).run_async()
    assert first.rows[1].reason == "failed: the loss exploded"
    (tmp_path / "broken").unlink()
    second = await Comparing(config, budget=BUDGET).run_async(resume=True)
    assert second.id == first.id
    assert [row.run_id for row in second.rows] == [row.run_id for row in first.rows]
    assert second.rows[0].account == first.rows[0].account
    assert second.rows[1].comparison is not None
    assert second.rows[1].account is not None
    assert second.rows[1].account.learning.rollouts == 16  # what was run before it failed among them
    assert len(await runs_of(tmp_path)) == 4
    with pytest.raises(ConfigError, match=r"compare\.budget: was 20, now 30"):
        await Comparing(config, budget=30).run_async(resume=True)
    with pytest.raises(ConfigError, match="there is no comparison other"):
        await Comparing(config, budget=BUDGET).run_async(resume="other")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_a_comparison_that_was_ended_goes_on_where_it_was(tmp_path: Path, number: int, code: int) -> None:
    compared = {"algorithms": {name: ALGORITHMS[name] for name in ("best", "near")}}
    config = load_config(make_project(tmp_path, compare=compared))
    (tmp_path / "kill").write_text(str(int(number)))
    agl = "from agentlightning.cli import main; main()"
    command = [sys.executable, "-c", agl, "compare", "config.yaml", "--budget", str(BUDGET)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert ended.returncode == code, ended.stderr
    before = asyncio.run(runs_of(tmp_path))
    assert [run.name for run in before] == [f"levels/{name}" for name in ("compare", "baseline", "best", "near")]
    if number == signal.SIGTERM:
        assert f"go on with the same command and --resume {before[0].id}" in ended.stderr
    (tmp_path / "kill").unlink()
    found = Comparing(config, budget=BUDGET).run(resume=True)
    assert (found.id, [row.run_id for row in found.rows]) == (before[0].id, [before[2].id, before[3].id])
    assert asyncio.run(runs_of(tmp_path))[3:][0].status == "succeeded"
    near = found.rows[1].account
    assert near is not None
    assert (near.learning.rollouts, near.seconds > 0) == (9, True)


async def test_where_the_agent_as_it_is_cannot_be_scored_nothing_is_learned(tmp_path: Path) -> None:
    config = settings(tmp_path, reward="levels:unknown")
    with pytest.raises(
        AlgorithmError, match="could not be evaluated, so there is nothing to compare with: no held-out"
    ):
        await Comparing(config, names=["best"], budget=BUDGET).run_async()
    runs = await runs_of(tmp_path)
    assert [(run.name, run.status) for run in runs] == [("levels/compare", "failed"), ("levels/baseline", "succeeded")]


# The terms.


@pytest.mark.parametrize(
    ("changes", "names", "budget", "message"),
    [
        ({}, ["best"], None, "--budget 2000"),
        ({"compare": {}}, None, 10, "nothing to compare"),
        ({}, ["best", "best"], 10, "'best' cannot be, or is twice"),
        ({}, ["baseline"], 10, "'baseline' cannot be"),
        (
            {"compare": {"algorithms": {"x": {"name": "levels:Tune", "lvl": 1}}}},
            None,
            10,
            "x: algorithm.lvl: unknown key",
        ),
        (
            {"compare": {"algorithms": {"x": {"name": "levels:Planning", "budget": 50}}}},
            None,
            10,
            "x: algorithm.budget: 50 is more than the budget of all, 10",
        ),
        ({"compare": {"algorithms": ALGORITHMS, "samples": 3}}, None, 10, "runs each held-out task once"),
    ],
)
def test_other_terms_for_one_of_them_are_refused(
    tmp_path: Path, changes: dict[str, Any], names: list[str] | None, budget: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        levers_of(settings(tmp_path, **changes), names, budget)


def test_an_algorithm_that_nobody_has_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="few_shoot"):
        Comparing(settings(tmp_path), names=["best", "few_shoot"], budget=10)
    assert not (tmp_path / "store.db").exists()


TORCH = {"model": {"path": "a-model", "lora": {"rank": 4}}, "temperature": 0.7, "engine": {"max_tokens": 9}}
WEIGHTS = {"batch_tasks": 4, "group_size": 2}


def levers(tmp_path: Path, budget: int = 100, **compared: Any) -> dict[str, dict[str, Any]]:
    algorithm = {"name": "grpo", **TORCH, **WEIGHTS, "steps": 50, "lr": 1e-3}
    config = settings(tmp_path, algorithm=algorithm, compare={"algorithms": compared})
    return {lever.name: lever.config.algorithm for lever in levers_of(config, None, budget)}


def test_what_runs_where_and_how_is_shared_and_the_rest_is_each_ones_own(tmp_path: Path) -> None:
    found = levers(tmp_path, grpo={}, sft={**WEIGHTS, "lr": 1e-4}, eval={})
    assert found["grpo"]["lr"] == 1e-3
    assert found["sft"]["lr"] == 1e-4
    assert "steps" in found["sft"]
    assert found["sft"]["model"] == TORCH["model"]
    assert found["eval"]["model"] == {"path": "a-model"}  # nothing is trained there
    for section in found.values():
        assert (section["temperature"], section["engine"]) == (0.7, {"max_tokens": 9})


def test_prompts_are_learned_for_the_model_that_the_weights_begin_with(tmp_path: Path) -> None:
    found = levers(tmp_path, few_shot={}, gepa={"reflection": "policy"}, grpo={})
    for name in ("few_shot", "gepa"):
        section = {key: found[name][key] for key in ("model", "temperature", "engine", "samples")}
        assert section == {"model": {"path": "a-model"}, "temperature": 0.7, "engine": TORCH["engine"], "samples": 1}
    with pytest.raises(ConfigError, match=r"few_shot: algorithm\.samples: 2 where the others run each"):
        levers(tmp_path, few_shot={"samples": 2}, grpo={})


def test_as_many_steps_are_made_as_the_budget_pays_for(tmp_path: Path) -> None:
    validated = {"validate": {"every": 4, "tasks": 6}}
    found = levers(
        tmp_path, grpo={}, sft=WEIGHTS, short={"name": "grpo", "steps": 3}, much={"name": "grpo", **validated}
    )
    assert {name: section["steps"] for name, section in found.items()} == {"grpo": 12, "sft": 12, "short": 3, "much": 9}
    assert 9 * 8 + 4 * 6 <= 100 < 10 * 8 + 4 * 6
    assert levers(tmp_path, budget=5, grpo={})["grpo"]["steps"] == 1


def test_models_are_evaluated_at_one_temperature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the temperatures differ: grpo 0\.7, sft 1"):
        levers(tmp_path, grpo={}, sft={"temperature": 1.0})


# One lever after another.


async def test_the_prompts_of_another_run_are_what_the_agents_are_given(tmp_path: Path) -> None:
    config = settings(tmp_path)
    first = await Trainer.from_config(config).fit_async()
    config.prompts_from = first.run_id
    config.algorithm = {"name": "eval"}
    given = await Trainer.from_config(config).fit_async()
    assert given.evaluations[0].mean == first.evaluations[-1].mean != first.evaluations[0].mean
    config.prompts_from = given.run_id
    assert (await Trainer.from_config(config).fit_async()).evaluations[0].mean == first.evaluations[-1].mean
    with_none = await _without_prompts(config)
    for run, message in (("nobody", "there is no run nobody"), (with_none, "published no prompt")):
        config.prompts_from = run
        with pytest.raises(ConfigError, match=message):
            await Trainer.from_config(config).fit_async()


async def _without_prompts(config: Any) -> str:
    config.prompts_from = None
    return (await Trainer.from_config(config).fit_async()).run_id


# The command.


def test_the_command_says_what_pays_and_writes_it_down(tmp_path: Path) -> None:
    config = make_project(tmp_path, compare={"algorithms": {"best": ALGORITHMS["best"]}})
    result = CliRunner().invoke(
        main, ["compare", str(config), "--budget", str(BUDGET), "--output", str(tmp_path / "table.md"), "--quiet"]
    )
    assert result.exit_code == 0, result.output
    assert "recommended: best" in result.stdout
    text = (tmp_path / "table.md").read_text()
    assert "40 held-out tasks, sampled as the agent asks; 20 rollouts for each lever (McNemar, exact)" in text
    assert "| best | 0.250 → 0.950 | +0.700 |" in text
    assert "**Recommended:** best. best: 0.250 → 0.950" in text
    (written,) = (tmp_path / "runs").glob("*/comparison.json")
    found = json.loads(written.read_text())
    assert (found["rows"][0]["name"], found["recommendation"]["lever"]) == ("best", "best")
    shown = CliRunner().invoke(main, ["show", found["id"], "--store", f"sqlite:///{tmp_path}/store.db"])
    assert shown.exit_code == 0, shown.output
    assert "recommendation" in shown.stdout
    assert "0.250 → 0.950" in shown.stdout
    assert (written.parent / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert f"agl compare CONFIG --resume {found['id']}" not in shown.stdout  # it is done
    written.write_text("{}")
    shown = CliRunner().invoke(main, ["show", found["id"], "--store", f"sqlite:///{tmp_path}/store.db"])
    assert (shown.exit_code, "cannot be read" in shown.stdout) == (0, True), shown.output


def test_nothing_is_drawn_of_a_comparison_in_which_nothing_could_be_compared(
    compared: Compared, tmp_path: Path
) -> None:
    rows = [row for row in compared[1].rows if row.comparison is None]
    assert draw_levers(replace(compared[1], rows=rows), tmp_path / "comparison.png") is None


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    config = str(make_project(tmp_path))
    for arguments, message in (
        (["--output", "table.pdf"], "a name that ends in .md or .json"),
        (["--algorithms", "best,gone", "--budget", "5"], "gone"),
        (["--algorithms", "best"], "--budget 2000"),
        (["--algorithms", "best", "--budget", "5", "--combine"], "and one that trains weights"),
    ):
        result = CliRunner().invoke(main, ["compare", config, *arguments])
        assert result.exit_code == 2, result.output
        assert message in result.stderr


def test_candidates_that_are_a_number_have_no_prices() -> None:
    """Few_shot has how many sets it compares where selection has its models."""
    assert known_prices({"name": "few_shot", "candidates": 6}) == {}
    assert known_prices({"candidates": [{"model": "small", "input_price": 1}]}) == {"small": (1.0, 0.0)}
