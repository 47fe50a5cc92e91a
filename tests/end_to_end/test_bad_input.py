"""Bad input, as a person meets it at the shell: a clear error, exit code 2, and never a bare traceback."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from agentlightning.cli import main

MODULE = """
import msgspec
from agentlightning import Algorithm

def agent(text):
    return text

def score(rollout, task):
    return 1.0

number = 42

class Options(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 1

class Once(Algorithm):
    Config = Options

    async def run(self, run):
        async for group in run.collect(run.tasks, group_size=1, step=1):
            pass
"""

CONFIG = {
    "agent": "mine:agent",
    "tasks": "tasks.jsonl",
    "reward": "mine:score",
    "algorithm": {"name": "mine:Once"},
    "store": "sqlite:///store.db",
}

Change = Callable[[Path, dict], list[str] | None]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("mine", "broken"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    (tmp_path / "mine.py").write_text(MODULE, encoding="utf-8")
    tasks = [{"id": f"t{number}", "input": f"say {number}"} for number in range(4)]
    write_lines(tmp_path / "tasks.jsonl", *map(json.dumps, tasks))
    return tmp_path


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def agl(*arguments: str):
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def train_with(folder: Path, change: Change):
    config = json.loads(json.dumps(CONFIG))
    arguments = change(folder, config) or []
    path = folder / "config.yaml"
    if not path.exists():
        path.write_text(json.dumps(config), encoding="utf-8")
    return agl("train", "config.yaml", "--quiet", *arguments)


def put(**values) -> Change:
    """Changes values of the config."""
    return lambda folder, config: config.update(values)


def file(name: str, *lines: str, **values) -> Change:
    """Writes a file, and changes values of the config."""

    def change(folder: Path, config: dict) -> None:
        write_lines(folder / name, *lines)
        config.update(values)

    return change


def arguments(*given: str) -> Change:
    return lambda folder, config: list(given)


def newer_store(folder: Path, config: dict) -> None:
    with sqlite3.connect(folder / "store.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()


TABLE: dict[str, tuple[Change, str]] = {
    "config: not YAML": (file("config.yaml", "agent: [a"), "not valid YAML"),
    "config: not a mapping": (file("config.yaml", "- a"), "expected a mapping"),
    "config: unknown key": (put(sed=1), "sed: unknown key; did you mean seed?"),
    "config: wrong type": (put(seed="one"), "seed: expected int, got str"),
    "config: wrong type, deep": (put(runner={"timeout": "soon"}), "runner.timeout: expected float, got str"),
    "config: a key is missing": (file("config.yaml", "agent: a:b"), "missing, and there is no default"),
    "--set without a value": (arguments("--set", "seed"), "expected a.b=value"),
    "agent: no such module": (put(agent="mien:agent"), "no module named 'mien'"),
    "agent: no such attribute": (put(agent="mine:agnet"), "did you mean 'agent'"),
    "agent: module fails to import": (file("broken.py", "1 / 0", agent="broken:agent"), "ZeroDivisionError"),
    "agent: not module:attribute": (put(agent="mine.py"), "mine"),
    "agent: nothing that runs": (put(agent="mine:number"), "no installed adapter runs"),
    "tasks: no such file": (put(tasks="none.jsonl"), "none.jsonl"),
    "tasks: empty": (file("tasks.jsonl"), "tasks.jsonl"),
    "tasks: a line that is no JSON": (file("tasks.jsonl", '{"input": "a"}', "{input"), "tasks.jsonl:2"),
    "tasks: no input": (file("tasks.jsonl", '{"question": "a"}', '{"question": "b"}'), "question"),
    "tasks: one id twice": (file("tasks.jsonl", *['{"id": "x", "input": "a"}'] * 2), "x"),
    "tasks: unknown format": (file("tasks.xyz", "a", tasks="tasks.xyz"), ".xyz"),
    "tasks: only one": (file("tasks.jsonl", '{"input": "a"}'), "hold any out"),
    "reward: unknown name": (put(reward="numeric_mach"), "numeric_mach"),
    "reward: no such function": (put(reward="mine:scroe"), "did you mean 'score'"),
    "reward: a misspelt key": (put(reward=[{"name": "mine:score", "wieght": 2}]), "did you mean weight?"),
    "algorithm: unknown name": (put(algorithm={"name": "gpro"}), "gpro"),
    "algorithm: no name": (put(algorithm={}), "algorithm.name: missing"),
    "algorithm: unknown option": (put(algorithm={"name": "mine:Once", "stpes": 1}), "did you mean steps?"),
    "algorithm: wrong type": (put(algorithm={"name": "mine:Once", "steps": "x"}), "algorithm.steps: expected int"),
    "store: unknown scheme": (put(store="mysql://here"), "mysql"),
    "store: not a database": (file("store.db", *["no database"] * 100), "store.db"),
    "store: made by a newer version": (newer_store, "version"),
    "resume: nothing to resume": (arguments("--resume"), "agl runs"),
    "resume: unknown run": (arguments("--resume", "nope"), "nope"),
}


@pytest.mark.parametrize(("change", "message"), TABLE.values(), ids=TABLE.keys())
def test_a_mistake_before_the_run_is_one_clear_error(folder, change, message):
    result = train_with(folder, change)

    assert result.exit_code == 2, result.output
    assert result.output.startswith("error: ")
    assert message in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("train", "none.yaml"), "agl init"),
        (("show", "nope"), "nope"),
        (("show", "mine-Once", "--rollouts", "worst"), "expected failed, best, or step=N"),
        (("export", "nope", "--format", "jsonl"), "nope"),
        (("serve", "nope"), "there is no run 'nope'"),
        (("compare-runs", "nope", "nope"), "there is no run 'nope'"),
        (("init", "nope:agent"), "nope"),
    ],
)
def test_a_mistake_at_another_command_is_one_clear_error(folder, command, message):
    assert train_with(folder, put()).exit_code == 0
    store = () if command[0] in ("train", "init") else ("--store", "sqlite:///store.db")
    result = agl(*command, *store)

    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


REWARDS = {
    "raises": "raise KeyError('answer')",
    "no_number": "return float('nan')",
    "text": "return 'good'",
    "infinite": "return float('inf')",
}


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_that_breaks_is_a_typed_failure_and_nothing_recorded_is_lost(folder, name):
    write_lines(folder / f"{name}.py", "def score(rollout, task):", f"    {REWARDS[name]}")
    assert train_with(folder, put(reward=f"{name}:score")).exit_code == 0
    exported = agl(
        "export", run_id(folder), "--format", "jsonl", "--store", "sqlite:///store.db", "--output", "out.jsonl"
    )

    assert exported.exit_code == 0, exported.output
    rollouts = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rollouts) == 3
    assert {rollout["failure"]["type"] for rollout in rollouts} == {"reward_error"}
    assert {rollout["output"] for rollout in rollouts} <= {f"say {number}" for number in range(4)}


def run_id(folder: Path) -> str:
    with sqlite3.connect(folder / "store.db") as database:
        ((found,),) = database.execute("SELECT id FROM runs")
    database.close()
    return found
