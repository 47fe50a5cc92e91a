"""`agl eval`: the agent on tasks, nothing learned, a run of its own; `agl compare-runs`: two runs, task by task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agentlightning.algorithm import Evaluation
from agentlightning.cli import main
from agentlightning.cli.commands.evaluate import without_training
from agentlightning.cli.compare import compare_runs, unshared
from agentlightning.config import Config, TasksConfig
from agentlightning.errors import ConfigError, DataError
from agentlightning.evaluation import Eval, EvalConfig
from agentlightning.records import Task
from agentlightning.store import RunRecord, open_store

Agl = Callable[..., Result]

WORK = """
def answer(question):
    return question.upper() if LOUD else question


def is_loud(rollout, task):
    return float(rollout.output.isupper())
"""
CONFIG = """
agent: my_eval_work:answer
tasks: {train: train.csv, held_out: held_out.csv}
reward: my_eval_work:is_loud
algorithm: {name: nobody_has_this_one, steps: 7}
"""


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agl]:
    """Runs ``agl`` in a user's folder; ``loud=True`` makes the agent there another one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "train.csv").write_text("input\nred\ngreen\n")
    (tmp_path / "held_out.csv").write_text("input\n" + "".join(f"word {number}\n" for number in range(12)))

    def run(*arguments: str, loud: bool = False) -> Result:
        (tmp_path / "my_eval_work.py").write_text(f"LOUD = {loud}\n{WORK}")
        sys.modules.pop("my_eval_work", None)
        return CliRunner().invoke(main, arguments)

    yield run
    sys.modules.pop("my_eval_work", None)


async def runs() -> list[RunRecord]:
    store = open_store("sqlite:///runs/agentlightning.db")
    try:
        return await store.runs()
    finally:
        await store.close()


def test_the_held_out_tasks_are_run_and_kept_as_a_run_of_its_own(agl: Agl) -> None:
    result = agl("eval", "config.yaml", loud=True)
    assert result.exit_code == 0, result.stderr
    assert [line.split() for line in result.stdout.splitlines() if line.startswith("   0")] == [
        ["0", "12", "1.000", "–"]
    ]
    (run,) = asyncio.run(runs())
    assert (run.algorithm, run.status) == ("eval", "succeeded")
    assert f"agl compare-runs RUN {run.id}" in result.stdout


def test_tasks_of_another_file_take_the_place_of_those_held_out(agl: Agl, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("input\na\nb\nc\n")
    result = agl("eval", "config.yaml", "--tasks", "more.csv")
    assert [line.split()[:3] for line in result.stdout.splitlines() if line.startswith("   0")] == [["0", "3", "0.000"]]


def test_two_runs_are_compared_task_by_task(agl: Agl) -> None:
    agl("eval", "config.yaml")
    agl("eval", "config.yaml", loud=True)
    quiet, loud = (run.id for run in asyncio.run(runs()))
    result = agl("compare-runs", quiet, loud)
    assert result.exit_code == 0, result.stderr
    assert "The same tasks (p: McNemar, exact)" in result.stdout
    (line,) = [line.split() for line in result.stdout.splitlines() if "+1.000" in line]
    assert line == ["12", "0.000", "1.000", "+1.000", "–", "4.9e-04"]


def test_runs_on_other_tasks_cannot_be_compared(agl: Agl, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("input\na\nb\nc\n")
    agl("eval", "config.yaml")
    agl("eval", "config.yaml", "--tasks", "more.csv")
    result = agl("compare-runs", *(run.id for run in asyncio.run(runs())))
    assert result.exit_code == 2
    assert "they were evaluated on no task, with the same input and expected answer" in result.stderr


def config(**algorithm: Any) -> Config:
    return Config(agent="a:b", tasks="tasks.jsonl", algorithm=algorithm)


def test_without_a_model_named_it_is_the_one_that_the_config_would_train() -> None:
    trained = config(name="grpo", model={"path": "base", "dtype": "bfloat16", "lora": {"rank": 4}}, lr=1.0)
    section = without_training(trained, None, None).algorithm
    assert section == {"name": "eval", "model": {"path": "base", "dtype": "bfloat16"}}


def test_a_folder_takes_the_place_of_the_models_path_alone() -> None:
    trained = config(name="sft", model={"path": "base", "device": "cpu"}, temperature=0.5, evaluate={"samples": 3})
    assert without_training(trained, "runs/x/model", None).algorithm == {
        "name": "eval",
        "model": {"path": "runs/x/model", "device": "cpu"},
        "temperature": 0.5,
        "samples": 3,
    }


def test_own_leaves_the_agents_their_models() -> None:
    trained = config(name="grpo", model={"path": "base"}, temperature=0.5, evaluate={"samples": 2, "greedy": False})
    assert without_training(trained, "own", None).algorithm == {"name": "eval", "samples": 2}


@pytest.mark.parametrize("option", [{"temperature": 0.5}, {"greedy": False}, {"engine": {"port": 1}}, {"server": "x"}])
def test_an_option_of_a_model_without_a_model_is_refused(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"algorithm.{name}: has an effect only where the agents call a model"):
        Eval(EvalConfig(**option))


def test_a_task_file_keeps_the_names_of_the_columns() -> None:
    asked = config(name="grpo")
    asked.tasks = TasksConfig(train="a.csv", fields={"input": "question"})
    tasks = without_training(asked, None, "b.csv").tasks
    assert isinstance(tasks, TasksConfig)
    assert (tasks.train, tasks.held_out, tasks.fields) == ("b.csv", "b.csv", {"input": "question"})


def evaluation(step: int, variant: str, rewards: dict[str, float], *, input: str = "?") -> Evaluation:
    tasks = [Task(id=id, input=input) for id in rewards]
    return Evaluation(step=step, variant=variant, tasks=tasks, rollouts=[], rewards=list(rewards.values()))


def test_the_last_evaluation_of_each_variant_counts() -> None:
    first = [evaluation(0, "greedy", {"a": 0.0, "b": 0.0}), evaluation(8, "greedy", {"a": 1.0, "b": 0.0})]
    second = [evaluation(0, "greedy", {"b": 1.0, "a": 1.0}), evaluation(0, "sampled", {"a": 1.0})]
    (comparison,) = compare_runs(first, second)
    assert (comparison.variant, comparison.n, comparison.before, comparison.after) == ("greedy", 2, 0.5, 1.0)


def test_an_agent_with_its_own_model_is_compared_with_every_variant() -> None:
    own = [evaluation(0, "", {"a": 1.0})]
    trained = [evaluation(5, "sampled", {"a": 0.0}), evaluation(5, "greedy", {"a": 1.0})]
    assert [(each.variant, each.difference) for each in compare_runs(own, trained)] == [("sampled", -1), ("greedy", 0)]


def test_only_tasks_that_are_the_same_in_both_are_paired() -> None:
    one, other = [evaluation(0, "", {"a": 0.0, "b": 0.0})], [evaluation(0, "", {"b": 1.0, "c": 1.0})]
    (comparison,) = compare_runs(one, other)
    assert (comparison.n, comparison.left_out, unshared(one, other)) == (1, 0, 2)
    with pytest.raises(DataError, match="cannot be compared"):
        compare_runs(one, [evaluation(0, "", {"a": 0.0, "b": 0.0}, input="another question")])
