"""`agl init`: what it sees of an agent, and that what it writes runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentlightning.cli import main
from agentlightning.cli.init import write
from agentlightning.config import load_config
from agentlightning.errors import ConfigError

Agl = Callable[..., Result]

AGENTS = """
def answer(question):
    return "It is 5, in Paris."


class Crew:
    pass


Crew.__module__ = "crewai.crew"
crew = Crew()


def make_crew():
    open("ran", "w").close()
    return Crew()


async def kickoff():
    open("ran", "w").close()


class Bot:
    pass


bot = Bot()
"""

ALGORITHM = """
from agentlightning.algorithm import Algorithm


class Once(Algorithm):
    async def run(self, run):
        await run.evaluate(step=0)
        async for group in run.collect(run.tasks, group_size=2, step=1):
            pass
        run.progress(step=1, steps=1)
        await run.evaluate(step=1)
        run.result("model", "nowhere")
"""


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agl]:
    """Runs ``agl`` in a folder with agents and an algorithm of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "my_agents.py").write_text(AGENTS)
    (tmp_path / "my_algorithm.py").write_text(ALGORITHM)
    before = set(sys.modules)
    yield lambda *arguments: CliRunner().invoke(main, arguments)
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("my_agents", "my_algorithm", "reward", "training"):
            del sys.modules[name]


def test_the_adapter_that_runs_the_agent_is_named(agl: Agl) -> None:
    lines = [line.rstrip() for line in agl("init", "my_agents:answer").stdout.splitlines()]
    assert lines[:2] == ["agent    my_agents:answer", "adapter  function"]
    assert "written: agentlightning.yaml, reward.py, tasks.jsonl" in lines


@pytest.mark.parametrize("folder", [".", "training"])
def test_what_is_written_trains(agl: Agl, folder: str) -> None:
    assert agl("init", "my_agents:answer", "--output", folder).exit_code == 0
    result = agl("train", str(Path(folder, "agentlightning.yaml")), "--set", "algorithm={name: my_algorithm:Once}")
    assert result.exit_code == 0, result.stderr
    assert "step 1/1  reward " in result.stderr
    assert "Held-out tasks, before and after" in result.stdout
    assert "model  nowhere" in result.stdout


def test_the_reward_that_is_written_scores_what_it_can(agl: Agl, tmp_path: Path) -> None:
    from agentlightning.loading import load
    from agentlightning.records import Rollout, Task

    agl("init", "my_agents:answer")
    score = load("reward:score")

    def of(output: object, expected: object) -> object:
        rollout = Rollout(id="", run_id="", group_id="", task_id="", purpose="train", output=output)
        return score(rollout, Task(id="", input="paris", expected=expected))

    assert of("It is in Paris.", "paris") == 1.0
    assert of("It is in Rome.", "paris") == 0.0
    assert of({"messages": [{"content": "Paris?"}, {"content": "Rome."}]}, "Paris") == 0.0
    assert of(None, "Paris") == 0.0
    assert of("Paris", None) is None


def test_the_config_names_what_is_written_beside_it(agl: Agl) -> None:
    agl("init", "my_agents:answer")
    config = load_config("agentlightning.yaml")
    assert (config.agent, config.tasks, config.reward) == ("my_agents:answer", "tasks.jsonl", "reward:score")
    assert config.algorithm["name"] == "grpo"


def test_nothing_is_overwritten(agl: Agl, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("mine")
    result = agl("init", "my_agents:answer")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: reward.py: there already; --force overwrites")
    assert (tmp_path / "reward.py").read_text() == "mine"
    assert not (tmp_path / "agentlightning.yaml").exists()


def test_force_overwrites(agl: Agl, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("mine")
    assert agl("init", "my_agents:answer", "--force").exit_code == 0
    assert "def score" in (tmp_path / "reward.py").read_text()


@pytest.mark.parametrize("folder", ["no-package", "../elsewhere"])
def test_a_folder_that_cannot_be_imported_from_is_an_error(agl: Agl, folder: str) -> None:
    with pytest.raises(ConfigError, match="expected a folder in the current one"):
        write("my_agents:answer", Path(folder))


def test_an_agent_of_a_known_framework_names_the_adapter_to_install(agl: Agl) -> None:
    result = agl("init", "my_agents:crew")
    assert result.exit_code == 2
    assert "my_agents:crew is a crewai.crew.Crew: install the adapter agentlightning-crewai" in result.stderr
    assert re.search(r": pip install \S+adapters/openai \S+adapters/crewai", result.stderr)


@pytest.mark.parametrize("name", ["make_crew", "kickoff", "Crew"])
def test_what_may_be_a_factory_is_not_called_to_see(agl: Agl, tmp_path: Path, name: str) -> None:
    result = agl("init", f"my_agents:{name}")
    assert result.exit_code == 2
    assert f"write my_agents:{name}(), and it is called once" in result.stderr
    assert {path.name for path in tmp_path.glob("*[!_]")} == {"my_agents.py", "my_algorithm.py"}


def test_a_factory_is_written_down_and_not_called(agl: Agl, tmp_path: Path) -> None:
    result = agl("init", "my_agents:make_crew()")
    assert result.exit_code == 0, result.stderr
    assert "what it makes when training begins" in result.stdout
    assert load_config("agentlightning.yaml").agent == "my_agents:make_crew()"
    assert not (tmp_path / "ran").exists()


def test_any_other_object_is_told_to_be_wrapped_in_a_function(agl: Agl) -> None:
    result = agl("init", "my_agents:bot")
    assert result.exit_code == 2
    assert "my_agents.Bot, which no installed adapter runs" in result.stderr
    assert "name a function (input) -> output of yours" in result.stderr


def test_an_agent_that_does_not_load_is_an_error(agl: Agl) -> None:
    result = agl("init", "my_agents:nothing")
    assert (result.exit_code, "my_agents:nothing" in result.stderr) == (2, True)


def test_the_example_tasks_are_json_lines(agl: Agl, tmp_path: Path) -> None:
    agl("init", "my_agents:answer")
    lines = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert len(lines) >= 5
    assert all(set(line) == {"input", "expected"} for line in lines)
