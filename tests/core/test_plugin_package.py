"""A stranger's package, really built and installed with pip, is used by config name alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "stranger-plugin"
version = "2.3"
dependencies = ["agentlightning"]

[project.entry-points.agentlightning]
stranger = "stranger_plugin.plugin"

[tool.setuptools]
packages = ["stranger_plugin"]
""",
    "stranger_plugin/__init__.py": "",
    "stranger_plugin/plugin.py": """\
from agentlightning import hookimpl


@hookimpl
def register_rewards(register):
    register("brevity", "stranger_plugin.brevity:brevity")


@hookimpl
def register_algorithms(register):
    register("best_of", "stranger_plugin.best_of:BestOf")
""",
    "stranger_plugin/brevity.py": """\
def brevity(rollout, task):
    return 1 / len(rollout.output)
""",
    "stranger_plugin/best_of.py": """\
import msgspec

from agentlightning import Algorithm
from agentlightning.records import Prompt


class Config(msgspec.Struct, forbid_unknown_fields=True):
    prompts: list[str]


class BestOf(Algorithm):
    Config = Config

    async def run(self, run):
        prompts = [Prompt(name="prompt", version=i, template=text) for i, text in enumerate(self.config.prompts)]
        await run.publish(prompts[0])
        await run.evaluate(step=0)
        means = []
        for step, prompt in enumerate(prompts):
            groups = [group async for group in run.collect(run.tasks, step=step, resources=[prompt])]
            means.append(sum(group.rollouts[0].rollout.outcome for group in groups) / len(groups))
        best = prompts[means.index(max(means))]
        await run.publish(best)
        await run.evaluate(step=len(prompts))
        run.result("prompt", best.template)
""",
}

PROJECT = {
    "my_agent.py": """\
from agentlightning.recording import current
from agentlightning.records import Prompt


def answer(question):
    return "x" * (len(question) + len(current().resource(Prompt, None).template))
""",
    "tasks.jsonl": "".join(json.dumps({"input": "?" * (1 + number)}) + "\n" for number in range(10)),
    "config.yaml": """\
agent: my_agent:answer
tasks: tasks.jsonl
reward: brevity
algorithm:
  name: best_of
  prompts: ["a long prompt", "short", "a longer prompt yet"]
""",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has built and installed the package."""
    package = write(tmp_path_factory.mktemp("package"), PACKAGE)
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", str(target), str(package)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(tmp_path, PROJECT)


def agl(project: Path, installed: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, whose only knowledge of the package is that it is installed."""
    environment = {**os.environ, "PYTHONPATH": str(installed or ""), "COLUMNS": "200"}
    command = [str(Path(sys.executable).with_name("agl")), *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=100)


def test_a_config_that_names_its_reward_and_its_algorithm_trains(project: Path, installed: Path) -> None:
    done = agl(project, installed, "train", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert ["prompt", "short"] in [line.split() for line in done.stdout.splitlines()]


def test_it_is_listed_with_its_distribution(project: Path, installed: Path) -> None:
    done = agl(project, installed, "plugins")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "stranger-plugin" in line]
    assert "2.3" in line
    assert "best_of" in done.stdout
    assert "brevity" in done.stdout


def test_without_the_package_the_config_names_what_is_missing(project: Path) -> None:
    done = agl(project, None, "train", "config.yaml")
    assert done.returncode != 0
    assert "algorithm 'best_of' is not installed" in done.stderr
    assert "Traceback" not in done.stderr
