"""Going on with a run: it is the same run, or it is refused; and a checkpoint is there at every moment."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doing import Doing

from agentlightning import Algorithm, Trainer
from agentlightning.checkpoints import CHECKPOINTS
from agentlightning.config import Config, RewardConfig, RunnerConfig, TasksConfig
from agentlightning.errors import ConfigError
from agentlightning.progress import Progress
from agentlightning.records import Prompt
from agentlightning.store import RunRecord, open_store

TASKS = [{"id": f"t{number}", "input": number, "expected": number} for number in range(10)]


class Options(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 3
    lr: float = 3e-5
    model: dict[str, str] = {}


class Stopping(Algorithm):
    """Makes a checkpoint at every step; raises at step 2 where it is told to."""

    Config = Options
    stops = False

    async def run(self, run: Any) -> None:
        for step in range(run.restored.step + 1 if run.restored else 1, self.config.steps + 1):
            async for _ in run.collect(run.tasks[:2], group_size=1, step=step):
                pass
            run.log({"done": 1.0}, step=step)
            if step == 2 and self.stops:
                raise RuntimeError("stopped")
            await run.checkpoint(step, {}, lambda folder: (folder / "weights").write_text("w"))


class Other(Stopping):
    """Another algorithm with the same options."""


def echo(number: int) -> int:
    return number


def other_agent(number: int) -> int:
    return -number


def right(rollout: Any, task: Any) -> float:
    return float(rollout.output == task.expected)


def other_reward(rollout: Any, task: Any) -> float:
    return 0.5


Make = Callable[..., Trainer]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def trainer(**changes: Any) -> Trainer:
        options = {
            "agent": echo,
            "tasks": TASKS,
            "reward": right,
            "algorithm": Stopping(Options()),
            "store": f"sqlite:///{tmp_path / 'store.db'}",
            "directory": tmp_path / "runs",
            "name": "test",
            "progress": Progress(),
        }
        return Trainer(**(options | changes))

    return trainer


@pytest.fixture
def stopped(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that stopped in its second step."""
    with monkeypatch.context() as patched:
        patched.setattr(Stopping, "stops", True)
        with pytest.raises(RuntimeError, match="stopped"):
            make().fit()


async def the_run(folder: Path) -> RunRecord:
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    try:
        (run,) = await store.runs()
        return run
    finally:
        await store.close()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an option of the algorithm": (
        {"algorithm": Stopping(Options(lr=5e-3))},
        "algorithm.lr: was 3e-05, now 0.005. Leave it as it was, or start a new run",
    ),
    "an option below a section": (
        {"algorithm": Stopping(Options(model={"path": "b"}))},
        "algorithm.model.path: was not given, now b",
    ),
    "fewer steps": ({"algorithm": Stopping(Options(steps=2))}, "algorithm.steps: was 3, now 2"),
    "another algorithm": ({"algorithm": Other(Options())}, "algorithm.name: was stopping, now other. Leave"),
    "another seed": ({"seed": 5}, "seed: was 0, now 5"),
    "another task": ({"tasks": [*TASKS[:9], {"id": "t9", "input": 99}]}, "digest: was "),
    "tasks in another order": ({"tasks": TASKS[::-1]}, "tasks.digest: was "),
    "fewer tasks": ({"tasks": TASKS[:5]}, "tasks.count: was 8, now 4"),
    "other held-out tasks": ({"tasks": TASKS[:8], "held_out": TASKS[:2]}, "held_out.digest: was "),
    "another agent": ({"agent": other_agent}, "agent: was echo, now other_agent"),
    "another reward": ({"reward": other_reward}, "reward: was ['right'], now ['other_reward']"),
    "one reward more": ({"reward": [right, other_reward]}, "reward: was ['right'], now ['right', 'other_reward']"),
    "other agents to train": ({"train": ["writer"]}, "train: was ['*'], now ['writer']"),
    "another prompt": ({"prompts": {"writer": "Be brief."}}, "prompts"),
}


@pytest.mark.usefixtures("stopped")
@pytest.mark.parametrize(("change", "says"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_run_does_not_go_on_as_another_one(make: Make, tmp_path: Path, change: Any, says: str) -> None:
    before = await the_run(tmp_path)
    with pytest.raises(ConfigError, match=f"run {before.id} cannot go on with another config") as refused:
        await make(**change).fit_async(resume=True)
    assert says in str(refused.value)
    assert await the_run(tmp_path) == before, "a refusal leaves the record as it was"


def test_a_weight_of_a_reward_is_part_of_the_run(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    weighted = RewardConfig(name=f"{__name__}:right", weight=0.5)
    monkeypatch.setattr(Stopping, "stops", True)
    with pytest.raises(RuntimeError):
        make(reward=weighted).fit()
    with pytest.raises(ConfigError, match=r"reward: was .*0\.5.*, now .*0\.7"):
        make(reward=msgspec.structs.replace(weighted, weight=0.7)).fit(resume=True)


@pytest.mark.usefixtures("stopped")
async def test_more_steps_are_a_continuation_and_are_recorded(make: Make, tmp_path: Path) -> None:
    result = await make(algorithm=Stopping(Options(steps=5))).fit_async(resume=True)
    run = await the_run(tmp_path)
    assert (run.id, run.status, run.config["algorithm"]["steps"]) == (result.run_id, "succeeded", 5)


@pytest.mark.usefixtures("stopped")
async def test_how_rollouts_are_run_may_change(make: Make, tmp_path: Path) -> None:
    runner = RunnerConfig(concurrency=3, timeout=12.0)
    result = await make(runner=runner, directory=tmp_path / "elsewhere").fit_async(resume=True)
    run = await the_run(tmp_path)
    assert (run.id, run.status) == (result.run_id, "succeeded")
    assert run.config["runner"]["concurrency"] == 3


@pytest.mark.usefixtures("stopped")
async def test_a_succeeded_run_has_nothing_to_go_on_with(make: Make) -> None:
    done = await make().fit_async(resume=True)
    with pytest.raises(ConfigError, match="has succeeded"):
        await make().fit_async(resume=done.run_id)
    with pytest.raises(ConfigError, match="no unfinished run named test"):
        await make().fit_async(resume=True)


async def test_the_record_says_what_was_run(make: Make, tmp_path: Path) -> None:
    await make(prompts={"writer": "Be brief."}, seed=4).fit_async()
    run = await the_run(tmp_path)
    assert (run.seed, run.algorithm) == (4, "stopping")
    assert run.config["agent"] == "echo"
    assert run.config["algorithm"] == {"name": "stopping", "steps": 3, "lr": 3e-5, "model": {}}
    assert run.config["prompts"] == {"writer": "Be brief."}
    assert (run.config["tasks"]["count"], run.config["held_out"]["count"]) == (8, 2)


async def test_what_came_of_a_run_and_what_it_learned_nothing_from_is_recorded(make: Make, tmp_path: Path) -> None:
    held_out: list[str] = []

    async def body(run: Any) -> None:
        await run.publish(Prompt(name="prompt", template="Be brief."))
        run.result("model", "a folder")
        held_out.extend(task.id for task in run.held_out)

    await make(algorithm=Doing(body)).fit_async()
    run = await the_run(tmp_path)
    assert run.results == {"model": "a folder"}
    assert run.held_out == held_out
    assert run.resources == {"prompt": Prompt(name="prompt", template="Be brief.").digest}
    assert run.versions["agentlightning"] == version("agentlightning")
    assert run.versions["python"] == platform.python_version()


@pytest.mark.usefixtures("stopped")
async def test_versions_that_differ_are_said_and_recorded(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Saying(Progress):
        def message(self, text: str) -> None:
            said.append(text)

    before = await the_run(tmp_path)
    monkeypatch.setattr("agentlightning.trainer.installed_versions", lambda _: {**before.versions, "torch": "99.0"})
    await make(progress=Saying()).fit_async(resume=True)
    was = before.versions.get("torch", "none")
    assert f"run {before.id} goes on with other versions: torch {was}, now 99.0" in said
    assert (await the_run(tmp_path)).versions["torch"] == "99.0"


# From the record alone.


def a_stopping_run() -> list[dict[str, Any]]:
    return TASKS


async def test_a_run_goes_on_from_its_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    config = Config(
        agent=f"{__name__}:echo",
        tasks=TasksConfig(train=f"{__name__}:a_stopping_run", limit=9),
        reward=RewardConfig(name=f"{__name__}:right", weight=0.5),
        algorithm={"name": f"{__name__}:Stopping", "steps": 4},
        prompts={"writer": "Be brief."},
        runner=RunnerConfig(concurrency=3),
        store=store,
        directory=str(tmp_path / "runs"),
        name="test",
        seed=5,
    )
    with monkeypatch.context() as patched:
        patched.setattr(Stopping, "stops", True)
        with pytest.raises(RuntimeError, match="stopped"):
            await Trainer.from_config(config).fit_async()
    before = await the_run(tmp_path)
    result = await Trainer.from_record(before, store).fit_async(resume=before.id)
    after = await the_run(tmp_path)
    assert (result.run_id, after.status) == (before.id, "succeeded")
    assert (after.config, after.seed, after.name, after.held_out) == (
        *(before.config, before.seed, before.name),
        before.held_out,
    )


@pytest.mark.usefixtures("stopped")
async def test_a_run_of_python_objects_cannot_be_made_from_its_record(tmp_path: Path) -> None:
    run = await the_run(tmp_path)
    with pytest.raises(ConfigError, match="agent, tasks, reward, algorithm was given as a Python object"):
        Trainer.from_record(run, f"sqlite:///{tmp_path / 'store.db'}")


# Checkpoints.


@pytest.mark.usefixtures("stopped")
async def test_a_step_checkpointed_twice_and_killed_in_between_leaves_the_first(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the files of the second are written, and before the store knows of them."""

    class Again(Stopping):
        async def run(self, run: Any) -> None:
            assert run.restored.step == 1
            await run.checkpoint(1, {}, lambda folder: (folder / "weights").write_text("second"))

    async def killed(*_: Any) -> None:
        raise SystemExit("killed")

    Again.__name__ = "Stopping"
    with monkeypatch.context() as patched:
        patched.setattr("agentlightning.store.sqlite.SQLiteStore.put_checkpoint", killed)
        with pytest.raises(SystemExit):
            await make(algorithm=Again(Options())).fit_async(resume=True)
    restored: list[str] = []

    class Reading(Stopping):
        async def run(self, run: Any) -> None:
            restored.append((Path(run.restored.path) / "weights").read_text())

    Reading.__name__ = "Stopping"
    await make(algorithm=Reading(Options())).fit_async(resume=True)
    assert restored == ["w"]


@pytest.mark.usefixtures("stopped")
async def test_a_checkpoint_in_place_of_another_of_its_step_is_the_only_one(make: Make, tmp_path: Path) -> None:
    folders: list[list[str]] = []

    class Again(Stopping):
        async def run(self, run: Any) -> None:
            await run.checkpoint(1, {}, lambda folder: (folder / "weights").write_text("second"))
            found = (run.directory / CHECKPOINTS).iterdir()
            folders.append([(folder / "weights").read_text() for folder in found])

    Again.__name__ = "Stopping"
    await make(algorithm=Again(Options())).fit_async(resume=True)
    assert folders == [["second"]]


@pytest.mark.usefixtures("stopped")
async def test_a_checkpoint_that_is_gone_is_said_and_the_record_left(make: Make, tmp_path: Path) -> None:
    before = await the_run(tmp_path)
    (checkpoint,) = (tmp_path / "runs" / before.id / "checkpoints").iterdir()
    checkpoint.rename(tmp_path / "away")
    with pytest.raises(ConfigError, match="the checkpoint of step 1 should lie in"):
        await make().fit_async(resume=True)
    assert await the_run(tmp_path) == before
