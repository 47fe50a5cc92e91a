"""The loop of policy gradients: with a backend that has no weights, through the ordinary trainer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from bandit import BanditBackend
from drawn_run import DrawnRun, group
from interrupted import Interrupted

from agentlightning import PolicyGradient, Trainer
from agentlightning.algorithm import Evaluation, Run
from agentlightning.backend import Backend
from agentlightning.credit import Credit
from agentlightning.errors import AlgorithmError, ConfigError, PluginError
from agentlightning.policies import Policies
from agentlightning.records import Policy, Rollout, Task
from agentlightning.run import TrainingRun
from agentlightning.training_rows import Group

TASKS = [{"id": str(number), "input": "heads or tails?"} for number in range(4)]
SECTION = {
    "backend": "bandit:BanditBackend",
    "answers": ["heads", "tails"],
    "steps": 3,
    "batch_tasks": 2,
    "group_size": 8,
    "checkpoint_every": 1,
}
README = Path(__file__).parents[2] / "core" / "README.md"


def ask(question: str) -> str | None:
    client = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0)
    with client:
        asked: Any = [{"role": "user", "content": question}]
        return client.chat.completions.create(model="any", messages=asked).choices[0].message.content


def is_tails(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == "tails")


def train(folder: Path, algorithm: Any, *, agent: Any = ask, reward: Any = is_tails, **options: Any) -> Trainer:
    return Trainer(
        agent,
        TASKS,
        reward,
        algorithm,
        held_out=TASKS[:1],
        store=f"sqlite:///{folder}/store.db",
        directory=folder / "runs",
        name="bandit",
        **options,
    )


def preferences(folder: str) -> list[float]:
    return list(np.load(Path(folder) / "preferences.npy"))


def test_a_policy_without_weights_learns_what_is_rewarded(tmp_path: Path) -> None:
    result = train(tmp_path, {"name": f"{__name__}:Plain", **SECTION}).fit()
    heads, tails, version = preferences(result.results["model"])
    assert tails > 0.2 > 0 > heads
    assert version == 3


class Plain(PolicyGradient):
    """What the base does by itself."""


def test_a_run_that_was_cut_off_goes_on_from_its_policys_checkpoint(tmp_path: Path) -> None:
    Interrupted.ended = False
    trainer = train(tmp_path, {"name": "interrupted:Interrupted", **SECTION})
    with pytest.raises(AlgorithmError, match="the end"):
        trainer.fit()
    (before,) = (tmp_path / "runs").glob("*/checkpoints/step-2-*/policy/preferences.npy")
    assert np.load(before)[-1] == 2
    result = train(tmp_path, {"name": "interrupted:Interrupted", **SECTION}).fit(resume=True)
    assert preferences(result.results["model"])[-1] == 3


def test_a_run_ends_before_the_step_that_its_budget_does_not_cover(tmp_path: Path) -> None:
    result = train(tmp_path, {"name": f"{__name__}:Plain", **SECTION}, budget=39).fit()
    assert preferences(result.results["model"])[-1] == 2  # each of its steps takes 16 rollouts
    assert "after step 2" in result.results["stopped"]
    assert "asks for 16 rollouts, and 7 are left of the budget of 39" in result.results["stopped"]


class Pair(PolicyGradient):
    """A policy for each of two agents."""

    def backends(self, run: Run) -> list[Backend]:
        return [
            ForOneAgent(self.backend_config, name=name, seed=run.seed, max_updates=3, phase=run.phase)
            for name in ("first", "second")
        ]


class ForOneAgent(BanditBackend):
    async def publish(self) -> Policy:
        policy = await super().publish()
        policy.agents = (self.name,)
        return policy


def two_agents(question: str) -> dict[str, str | None]:
    from agentlightning import span

    answers = {}
    for name in ("first", "second"):
        with span(name, kind="agent", agent=name):
            answers[name] = ask(question)
    return answers


def differ(rollout: Rollout, task: Task) -> float:
    return float(rollout.output == {"first": "heads", "second": "tails"})


def test_an_evaluation_that_was_cut_off_is_finished_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = TrainingRun.evaluate

    async def cut_off(run: TrainingRun, *, step: int, variant: str = "", **options: Any) -> Evaluation:
        if (step, variant) == (2, "greedy"):
            raise KeyboardInterrupt
        return await evaluate(run, step=step, variant=variant, **options)

    section = {"name": f"{__name__}:Plain", **SECTION, "evaluate": {"every": 2}}
    with monkeypatch.context() as patched:
        patched.setattr(TrainingRun, "evaluate", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, section).fit()
    result = train(tmp_path, section).fit(resume=True)
    assert sorted((one.step, one.variant) for one in result.evaluations) == [
        (step, variant) for step in (0, 2, 3) for variant in ("greedy", "sampled")
    ]
    assert all(one.mean is not None for one in result.evaluations)


def test_policies_of_one_run_have_rows_weights_checkpoints_and_results_of_their_own(tmp_path: Path) -> None:
    section = {**SECTION, "lr": 2.0}
    result = train(tmp_path, Pair.from_section(section), agent=two_agents, reward=differ).fit()
    first, second = (preferences(result.results[f"model/{name}"]) for name in ("first", "second"))
    assert first[0] > 0 > first[1]
    assert second[1] > 0 > second[0]


class Forgetful(PolicyGradient):
    def assign_credit(self, groups: Sequence[Group]) -> None:
        groups[0].rollouts[0].set_advantage(1.0)


def test_an_algorithm_that_forgets_a_rollout_is_stopped_by_name(tmp_path: Path) -> None:
    with pytest.raises(AlgorithmError, match=r"^step 1: the credit Forgetful gave tokens of rollout \w+ no advantage"):
        train(tmp_path, Forgetful.from_section(SECTION)).fit()


class Raises(Credit):
    def assign(self, groups: Sequence[Group]) -> None:
        raise KeyError("no reward")


def test_a_credit_plugin_that_raises_ends_the_step_by_its_name(tmp_path: Path) -> None:
    name = f"{__name__}:Raises"
    with pytest.raises(AlgorithmError, match=rf"^step 1: the credit {name} failed: KeyError: 'no reward'"):
        train(tmp_path, Plain.from_section({**SECTION, "credit": {"name": name}})).fit()


REWARDS = {"same": [1.0, 1.0], "other": [1.0, 0.0]}


class Listed(DrawnRun):
    """Tasks are named by how the rewards of their group are; every step asks for the next of ``names``."""

    def __init__(self, folder: Path, names: Sequence[str], **options: Any) -> None:
        super().__init__(folder, **options)
        self.names = names
        self.asked: list[tuple[int, range]] = []
        self.left_early = 0

    def batches(self, size: int) -> Callable[[int], list[Task]]:
        assert size == 1
        return lambda number: [Task(id=f"{number - 1}.{self.names[(number - 1) % len(self.names)]}", input="")]

    async def collect(self, tasks: Sequence[Task], *, step: int, **_: Any) -> AsyncGenerator[Group, None]:
        first = int(tasks[0].id.split(".")[0])
        self.asked.append((step, range(first, first + len(tasks))))
        given = 0
        try:
            for task in tasks:
                one = group(task.id, REWARDS[task.id.split(".")[1]])
                one.task = task
                given += 1
                yield one
        finally:
            self.left_early += given < len(tasks)


DYNAMIC = {**SECTION, "steps": 2, "informative_groups": 2, "max_tasks": 6}


async def dynamic(run: Listed, **changes: Any) -> Listed:
    await Plain.from_section({**DYNAMIC, **changes}).run(run)
    return run


async def test_a_step_goes_on_until_enough_groups_inform_and_learns_from_them_alone(tmp_path: Path) -> None:
    run = await dynamic(Listed(tmp_path, ["same", "other", "same", "other", "same", "same"]))
    # one of two informs, so two more may bring the second; of six only the last two
    assert run.asked == [(1, range(2)), (1, range(2, 4)), (2, range(4, 6)), (2, range(6, 8)), (2, range(8, 10))]
    assert [run.logged[step]["sequences"] for step in (1, 2)] == [4, 4]
    assert [run.logged[step]["groups_skipped"] for step in (1, 2)] == [2, 4]


async def test_a_step_takes_no_more_tasks_than_seem_to_be_needed(tmp_path: Path) -> None:
    run = await dynamic(
        Listed(tmp_path, [*["other"] * 7, "same", "other"]), steps=1, batch_tasks=8, informative_groups=8, max_tasks=20
    )
    assert run.asked == [(1, range(8)), (1, range(8, 10))]


async def test_a_collection_is_left_when_enough_groups_inform(tmp_path: Path) -> None:
    run = await dynamic(Listed(tmp_path, ["other", "other", "other", "same"]), batch_tasks=4, steps=1)
    assert run.asked == [(1, range(4))]
    assert run.left_early == 1
    assert run.logged[1]["sequences"] == 4


@pytest.mark.parametrize(("options", "asked"), [({"max_tasks": 5}, 5), ({"max_tasks": None}, 8)])
async def test_a_step_takes_no_more_tasks_than_it_may(tmp_path: Path, options: dict[str, Any], asked: int) -> None:
    run = await dynamic(Listed(tmp_path, ["other", *["same"] * 9]), steps=1, **options)
    assert run.asked[-1][1].stop == asked
    assert run.logged[1]["sequences"] == 2


async def test_where_no_group_informs_a_step_changes_nothing(tmp_path: Path) -> None:
    run = await dynamic(Listed(tmp_path, ["same"]), steps=1)
    assert run.asked[-1][1].stop == 6
    assert run.logged[1]["sequences"] == 0


async def test_a_run_that_goes_on_takes_the_tasks_that_come_next(tmp_path: Path) -> None:
    names = ["same", "other", "same", "same", "other", "same", "other"]
    whole = await dynamic(Listed(tmp_path / "whole", names), steps=3)
    first = await dynamic(Listed(tmp_path / "first", names), steps=2)
    rest = await dynamic(Listed(tmp_path / "rest", names, restored=first.checkpoints[-1]), steps=3)
    assert first.asked + rest.asked == whole.asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"informative_groups": 0}, "algorithm.max_tasks: has no effect without informative_groups"),
        ({"informative_groups": 7}, r"algorithm.max_tasks: expected at least .* \(7\), got 6"),
        ({"batch_tasks": 9}, r"algorithm.max_tasks: expected at least .* \(9\), got 6"),
    ],
)
def test_dynamic_sampling_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plain.from_section({**DYNAMIC, **changes})


def test_the_reinforce_of_the_readme_has_at_most_15_lines_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(\"\"\"REINFORCE.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 15
    (tmp_path / "reinforce.py").write_text(block, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "reinforce", raising=False)
    result = train(tmp_path, {"name": "reinforce:Reinforce", **SECTION}).fit()
    heads, tails, _ = preferences(result.results["model"])
    assert tails > 0 > heads


async def test_a_backend_is_closed_also_where_it_could_not_be_started(tmp_path: Path) -> None:
    closed: list[str] = []

    class Broken(BanditBackend):
        async def start(self) -> None:
            if self.name == "b":
                raise AlgorithmError("no memory")

        async def aclose(self) -> None:
            closed.append(self.name)

    run = DrawnRun(tmp_path)
    config = BanditBackend.Config(answers=["a"])
    backends = [Broken(config, name=name, seed=0, max_updates=1, phase=run.phase) for name in "ab"]
    with pytest.raises(AlgorithmError, match="no memory"):
        async with Policies(backends, run, temperature=1.0):
            pass
    assert closed == ["b", "a"]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"answer": []}, ConfigError, "algorithm.answer: unknown key; did you mean answers"),
        ({"answers": "heads"}, ConfigError, "algorithm.answers: expected array, got str"),
        ({"backend": "tourch"}, PluginError, "backend 'tourch' is not installed"),
        ({"backend": 3}, ConfigError, "algorithm.backend: expected str, got int"),
        ({"backend": "builtins:int"}, PluginError, "expected a subclass of Backend"),
        ({"temperature": 0.0}, ConfigError, "algorithm.temperature"),
    ],
)
def test_a_section_is_checked_with_the_fields_of_its_backend(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Plain.from_section({**SECTION, **fields})


def test_an_algorithm_that_gives_credit_itself_takes_no_other() -> None:
    with pytest.raises(ConfigError, match=r"algorithm\.credit: Forgetful gives credit in its own way"):
        Forgetful.from_section({**SECTION, "credit": "broadcast"})


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import agentlightning.policy_gradient, agentlightning.policies
import agentlightning_{name}.algorithm
from agentlightning_{name}.algorithm import {kind}
sys.path.insert(0, {tests!r})
{kind}.from_section({section!r})
"""


@pytest.mark.parametrize(("name", "kind"), [("grpo", "GRPO"), ("sft", "SFT")])
def test_algorithms_need_no_torch(name: str, kind: str) -> None:
    pytest.importorskip(f"agentlightning_{name}")
    script = WITHOUT_TORCH.format(name=name, kind=kind, section=SECTION, tests=str(Path(__file__).parents[1]))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
