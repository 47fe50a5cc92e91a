"""The best weights of a run by validation, and when it stops: with a backend that has no weights."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from bandit import BanditBackend
from drawn_run import DrawnRun
from interrupted import Interrupted

from agentlightning import PolicyGradient, Trainer
from agentlightning.algorithm import Evaluation, Run
from agentlightning.checkpoints import CHECKPOINTS
from agentlightning.cli.commands.runs import before_after
from agentlightning.errors import AlgorithmError, ConfigError
from agentlightning.policy_gradient import TAKEN
from agentlightning.progress import Progress
from agentlightning.records import AnyResource, Rollout, Task
from agentlightning.report import evaluations_of
from agentlightning.store import open_store
from agentlightning.store.base import Checkpoint, RunSummary

SECTION = {
    "backend": "bandit:BanditBackend",
    "answers": ["heads", "tails"],
    "steps": 4,
    "batch_tasks": 2,
    "group_size": 4,
    "checkpoint_every": 2,
}
VALIDATE = {"every": 1, "tasks": 1}
Means = Mapping[int, float | None]


class Plain(PolicyGradient):
    """What the base does by itself."""


def weights(folder: str) -> list[float]:
    """The bandit's preferences, and its version: how many steps it has learned from."""
    return list(np.load(Path(folder) / "preferences.npy"))


async def drawn(folder: Path, means: Means, validate: Mapping[str, Any] = VALIDATE, **options: Any) -> DrawnRun:
    """A run whose validations have these means."""
    run = DrawnRun(folder)
    run.validations = dict(means)
    await Plain.from_section({**SECTION, "validate": validate, **options}).run(run)
    return run


def validated(run: DrawnRun) -> list[int]:
    return [int(event.split()[1]) for event in run.events if event.startswith("validate")]


async def test_a_run_ends_with_the_weights_of_its_best_validation(tmp_path: Path) -> None:
    run = await drawn(tmp_path / "run", {0: 0.1, 1: 0.2, 2: 0.5, 3: 0.3, 4: 0.4})
    shorter = await drawn(tmp_path / "shorter", {0: 0.1, 1: 0.2, 2: 0.5}, steps=2)
    assert weights(run.results["model"]) == weights(shorter.results["model"])
    assert (run.results["best step"], run.published[-1].version) == ("2", 2)
    assert "stopped" not in run.results
    assert run.events[-2:] == ["evaluate 4 sampled at 1.0 x1", "evaluate 4 greedy at 0.0 x1"]
    assert [run.logged[step]["validation"] for step in range(5)] == [0.1, 0.2, 0.5, 0.3, 0.4]


async def test_a_run_that_only_gets_worse_ends_with_what_it_began_with(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: 0.5, 1: 0.4, 2: 0.3, 3: 0.2, 4: 0.1})
    assert weights(run.results["model"]) == [0.0, 0.0, 0.0]
    assert run.results["best step"] == "0"


async def test_the_last_weights_stay_where_they_are_the_best(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5})
    assert weights(run.results["model"])[-1] == 4
    assert [resource.version for resource in run.published] == [0, 1, 2, 3, 4]


async def test_of_several_as_good_the_earliest_is_the_best(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: 0.1, 1: 0.5, 2: 0.5, 3: 0.4, 4: 0.5})
    assert (run.results["best step"], weights(run.results["model"])[-1]) == ("1", 1)


async def test_it_is_looked_at_before_the_first_step_every_so_many_and_after_the_last(tmp_path: Path) -> None:
    means = {0: 0.1, 2: 0.2, 4: 0.3, 5: 0.4}
    run = await drawn(tmp_path, means, {**VALIDATE, "every": 2, "samples": 3}, steps=5, temperature=0.5)
    assert validated(run) == [0, 2, 4, 5]
    assert "validate 2 ['task0'] at 0.5 x3" in run.events


async def test_a_validation_that_could_not_be_scored_is_never_better(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: None, 1: 0.1, 2: None, 3: 0.1, 4: None})
    assert (run.results["best step"], weights(run.results["model"])[-1]) == ("1", 1)
    assert [step for step in range(5) if "validation" in run.logged.get(step, {})] == [1, 3]


async def test_where_none_could_be_scored_the_last_weights_stay_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = await drawn(tmp_path, dict.fromkeys(range(5)))
    assert weights(run.results["model"])[-1] == 4
    assert "best step" not in run.results
    assert "no validation could be scored: the run ends with the weights of its last step" in caplog.messages


async def test_training_stops_after_so_many_in_a_row_that_are_no_better(tmp_path: Path) -> None:
    means = {0: 0.1, 1: 0.0, 2: 0.5, 3: 0.5, 4: None, 5: 0.9}
    run = await drawn(tmp_path, means, {**VALIDATE, "patience": 2}, steps=9, evaluate={"every": 4}, checkpoint_every=9)
    assert [event for event in run.events if event.startswith("collect")] == [f"collect {n}" for n in (1, 2, 3, 4)]
    reason = "after step 4: of 2 validations in a row none was better than that of step 2"
    assert (run.results["stopped"], run.results["best step"]) == (reason, "2")
    assert weights(run.results["model"])[-1] == 2
    assert [checkpoint.step for checkpoint in run.checkpoints] == [4]
    assert run.events[-2:] == ["evaluate 4 sampled at 1.0 x1", "evaluate 4 greedy at 0.0 x1"]
    assert run.events.count("evaluate 4 greedy at 0.0 x1") == 1, "with the best weights alone"


async def test_patience_that_ends_with_the_last_step_stops_nothing(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: 0.5, 1: 0.6, 2: 0.1, 3: 0.1, 4: 0.1}, {**VALIDATE, "patience": 3})
    assert "stopped" not in run.results
    assert run.results["best step"] == "1"


async def test_a_run_without_validation_is_as_it_was(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {}, {})
    assert validated(run) == []
    assert len(run.tasks) == 3
    assert [set(checkpoint.state) for checkpoint in run.checkpoints] == [{TAKEN}, {TAKEN}]
    assert run.results.keys() == {"model"}
    assert not (tmp_path / CHECKPOINTS).exists()


class Stateful(PolicyGradient):
    """Has a state of its own, and sees the tasks that are trained on when it begins."""

    async def begin(self, run: Run, policies: Any) -> None:
        self.known = dict(run.restored.state) if run.restored is not None else {}
        self.seen = [task.id for task in run.tasks]

    def state(self) -> dict[str, Any]:
        return {"best": "its own"}


async def test_the_state_of_an_algorithm_is_beside_that_of_the_validation(tmp_path: Path) -> None:
    section = {**SECTION, "validate": VALIDATE}
    run = DrawnRun(tmp_path)
    run.validations = {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.2, 4: 0.2}
    first = Stateful.from_section(section)
    await first.run(run)
    assert first.seen == ["task1", "task2"]
    again = DrawnRun(tmp_path / "again", restored=run.checkpoints[0])
    again.validations = run.validations
    second = Stateful.from_section(section)
    await second.run(again)
    assert second.known["best"] == "its own"
    assert (validated(again), again.results["best step"]) == ([3, 4], "1")


# Cut off anywhere.


class CutOffError(Exception):
    """The process ends here."""


class Fragile(DrawnRun):
    """A run whose process ends at its ``cut``-th sign of life. Its checkpoints outlive it."""

    def __init__(self, directory: Path, restored: Checkpoint | None, cut: int | None) -> None:
        super().__init__(directory, restored=restored)
        self.validations = {0: 0.2, 1: 0.5, 2: 0.6, 3: 0.6, 4: 0.7, 5: 0.1, 6: 0.3, 7: 0.9}
        self._left = cut

    def sign(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise CutOffError

    async def publish(self, resource: AnyResource) -> None:
        self.sign()
        await super().publish(resource)

    async def evaluate(self, **options: Any) -> Evaluation:
        self.sign()
        evaluation = await super().evaluate(**options)
        self.sign()
        return evaluation

    def phase(self, name: str, *, done: int = 0, total: int = 0) -> None:
        self.sign()

    async def checkpoint(
        self, step: int, state: Mapping[str, Any], write: Callable[[Path], None] | None = None
    ) -> None:
        shutil.rmtree(self.directory / f"checkpoint-{step}", ignore_errors=True)
        await super().checkpoint(step, state, write)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.sign()
        super().log(metrics, step=step)


class FragileBackend(BanditBackend):
    """Gives a sign in the middle of every write."""

    def save(self, folder: Path) -> None:
        (folder / "half").touch()
        self.phase("half written")
        super().save(folder)

    def save_model(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        super().save_model(folder)


async def fragile(folder: Path, cut: int | None, restored: Checkpoint | None = None) -> tuple[Fragile, bool]:
    """The run, and whether it came to its end."""
    run = Fragile(folder, restored, cut)
    validate = {**VALIDATE, "patience": 2}
    section = {**SECTION, "backend": f"{__name__}:FragileBackend", "steps": 8, "checkpoint_every": 3}
    try:
        await Plain.from_section({**section, "validate": validate}).run(run)
    except CutOffError:
        return run, False
    return run, True


async def test_a_run_that_was_cut_off_anywhere_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, _ = await fragile(tmp_path / "whole", None)
    expected = weights(whole.results.pop("model"))
    assert (expected[-1], whole.results["best step"], whole.results["stopped"][:12]) == (4, "4", "after step 6")
    for cut in itertools.count():
        folder = tmp_path / str(cut)
        run, ended = await fragile(folder, cut)
        if ended:
            break
        run, _ = await fragile(folder, None, run.checkpoints[-1] if run.checkpoints else None)
        assert weights(run.results.pop("model")) == expected, cut
        assert run.results == whole.results, cut
        kept = [path.name.rpartition("-")[0] for path in (folder / CHECKPOINTS).iterdir()]
        assert kept == ["best-4"], cut
    assert cut > 40, "so many places were tried"


async def test_a_run_whose_best_weights_are_gone_does_not_go_on(tmp_path: Path) -> None:
    run = await drawn(tmp_path, {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.2, 4: 0.2})
    shutil.rmtree(tmp_path / CHECKPOINTS)
    with pytest.raises(AlgorithmError, match=r"the best weights, of step 1, should lie in .*best-1-\w+, and do not"):
        await Plain.from_section({**SECTION, "validate": VALIDATE}).run(
            DrawnRun(tmp_path / "again", restored=run.checkpoints[0])
        )


# What is refused.


@pytest.mark.parametrize("fields", [{"tasks": 5}, {"samples": 2}, {"patience": 3}])
def test_an_option_of_a_validation_that_is_never_made_is_refused(fields: dict[str, int]) -> None:
    (name,) = fields
    message = f"^algorithm.validate.{name}: has an effect only where every is not 0; leave it out"
    with pytest.raises(ConfigError, match=message):
        Plain.from_section({**SECTION, "validate": fields})


async def test_too_few_tasks_to_train_on_are_refused_before_anything_runs(tmp_path: Path) -> None:
    run = DrawnRun(tmp_path)
    message = r"^algorithm\.validate\.tasks: 2 of 3 training tasks set apart leave 1 to train on.*set fewer apart, or"
    with pytest.raises(ConfigError, match=message):
        await Plain.from_section({**SECTION, "validate": {"every": 1, "tasks": 2}}).run(run)
    assert (run.events, run.phases) == ([], [])


# In a run of the trainer.

TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(12)]
HELD_OUT = [{"id": f"held out {number}", "input": "heads or tails?"} for number in range(2)]
PURPOSES = ("check", "train", "evaluate", "validate")
MEANS = {0: 0.25, 1: 0.75, 2: 0.5, 3: 0.75, 4: 0.0}


def ask(question: str) -> str | None:
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="any", messages=asked).choices[0].message.content


def score(rollout: Rollout, task: Task) -> float:
    return MEANS[rollout.step] if rollout.purpose == "validate" else float(rollout.output == "tails")


class Watching(Progress):
    """Notes how far the run is, and that it stopped."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self.seen.append(f"{step}/{steps}")

    def stopped(self, step: int, reason: str) -> None:
        self.seen.append(f"stopped after {step}")

    def evaluation(self, evaluation: Evaluation, metrics: Mapping[str, float] | None = None) -> None:
        self.seen.append(f"{evaluation.purpose} {evaluation.step}")


def trainer(folder: Path, name: str = f"{__name__}:Plain", *, patience: int = 0, **options: Any) -> Trainer:
    section = {"name": name, **SECTION, "evaluate": {"greedy": False}}
    section["validate"] = {"every": 1, "tasks": 5, "patience": patience}
    places: Any = {"store": f"sqlite:///{folder}/store.db", "directory": folder / "runs"}
    return Trainer(ask, TASKS, score, section, held_out=HELD_OUT, name="bandit", **places, **options)


def recorded(folder: Path, run: str) -> tuple[list[Rollout], RunSummary]:
    async def look() -> tuple[list[Rollout], RunSummary]:
        store = open_store(f"sqlite:///{folder}/store.db")
        try:
            return await store.rollouts(run), await store.summary(run)
        finally:
            await store.close()

    return asyncio.run(look())


def test_the_tasks_of_a_validation_are_never_trained_on_nor_held_out(tmp_path: Path) -> None:
    found = []
    for folder, seed in ((tmp_path / "a", 0), (tmp_path / "b", 0), (tmp_path / "c", 1)):
        folder.mkdir()
        rollouts, _ = recorded(folder, trainer(folder, seed=seed).fit().run_id)
        tasks = {purpose: {one.task_id for one in rollouts if one.purpose == purpose} for purpose in PURPOSES}
        assert len(tasks["validate"]) == 5
        assert tasks["evaluate"] == {task["id"] for task in HELD_OUT}
        assert tasks["train"] | tasks["check"] == {task["id"] for task in TASKS} - tasks["validate"]
        found.append(tasks["validate"])
    assert found[0] == found[1] != found[2]


def test_a_validation_is_no_part_of_what_is_reported(tmp_path: Path) -> None:
    result = trainer(tmp_path).fit()
    assert [(one.step, one.variant) for one in result.evaluations] == [(0, "sampled"), (4, "sampled")]
    assert [(one.variant, one.n) for one in result.comparisons] == [("sampled", 2)]
    assert not any("5 held-out tasks" in finding for finding in result.findings)
    rollouts, summary = recorded(tmp_path, result.run_id)
    assert before_after(summary.collections).endswith(" (sampled)")
    assert [one.step for one in evaluations_of(rollouts, {}, purpose="validate")] == [0, 1, 2, 3, 4]
    assert all(len(one.tasks) == 2 for one in evaluations_of(rollouts, {}))
    assert (result.results["best step"], weights(result.results["model"])[-1]) == ("1", 1)


def test_a_run_that_stops_early_says_so(tmp_path: Path) -> None:
    progress = Watching()
    result = trainer(tmp_path, patience=2, progress=progress).fit()
    assert result.results["stopped"] == "after step 3: of 2 validations in a row none was better than that of step 1"
    assert progress.seen == [
        *("evaluate 0", "validate 0", "1/4", "validate 1", "2/4", "validate 2", "3/4", "validate 3"),
        *("stopped after 3", "evaluate 3"),
    ]
    assert [one.step for one in result.evaluations] == [0, 3]


def test_a_run_that_goes_on_knows_its_best_weights_and_leaves_none_behind(tmp_path: Path) -> None:
    Interrupted.ended = False
    with pytest.raises(AlgorithmError, match="the end"):
        trainer(tmp_path, "interrupted:Interrupted").fit()
    (best,) = (tmp_path / "runs").glob("*/checkpoints/best-1-*/policy")
    expected = weights(str(best))
    result = trainer(tmp_path, "interrupted:Interrupted").fit(resume=True)
    assert result.results["best step"] == "1"
    assert weights(result.results["model"]) == expected
    assert not (Path(result.directory) / CHECKPOINTS).exists()
