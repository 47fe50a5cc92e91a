"""`agl train`: the same as the Trainer, and how a run that stops is gone on with."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentlightning.cli import main

Agl = Callable[..., Result]

AGENT = """
import os
import pathlib
import signal
import threading

from agentlightning.algorithm import Algorithm


def answer(question):
    if question == "five" and pathlib.Path("interrupt").exists():
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait()
    return question


def is_long(rollout, task):
    return float(len(rollout.output) > 3)


class Steps(Algorithm):
    async def run(self, run):
        await run.evaluate("before")
        first = run.restored.step + 1 if run.restored else 1
        for step, task in enumerate(run.tasks, 1):
            if step < first:
                continue
            async for group in run.collect([task], group_size=2, step=step):
                run.log({"loss": 0.5}, step=step)
            run.progress(step=step, steps=len(run.tasks))
            await run.checkpoint(step, {})
            if pathlib.Path("break").exists():
                raise RuntimeError("the loss exploded")
        await run.evaluate("after")
"""

CONFIG = """
agent: my_work:answer
tasks: {train: train.csv, held_out: held_out.csv}
reward: my_work:is_long
algorithm: {name: "my_work:Steps"}
name: words
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: agent, algorithm, tasks, config."""
    (tmp_path / "my_work.py").write_text(AGENT)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "train.csv").write_text("input\none\nthree\nfive\nseven\n")
    (tmp_path / "held_out.csv").write_text("input\ntwo\neleven\n")
    return tmp_path


@pytest.fixture
def agl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agl]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield lambda *arguments: CliRunner().invoke(main, arguments)
    sys.modules.pop("my_work", None)


def test_a_run_ends_with_the_table_and_where_everything_is(agl: Agl, folder: Path) -> None:
    result = agl("train", "config.yaml")
    assert result.exit_code == 0, result.stderr
    assert "Held-out tasks, before and after" in result.stdout
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    assert f"(agl show {run.name})" in result.stdout
    assert len([line for line in result.stderr.splitlines() if line.startswith("step ")]) == 4


def test_quiet_leaves_only_the_result(agl: Agl) -> None:
    result = agl("train", "config.yaml", "--quiet")
    assert result.stderr == ""
    assert "Held-out tasks" in result.stdout


def test_the_curve_lies_in_the_runs_folder(agl: Agl, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    result = agl("train", "config.yaml")
    (curve,) = folder.glob("runs/words-*/curve.png")
    assert f"curve  {curve.relative_to(folder)}" in result.stdout
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_note_takes_the_curves_place(agl: Agl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.curve.find_spec", lambda name: None)
    result = agl("train", "config.yaml")
    assert result.exit_code == 0
    assert "no curve was drawn: that needs matplotlib (pip install matplotlib)" in result.stdout


def test_set_overrides_the_config(agl: Agl) -> None:
    assert "tasks.trian: unknown key" in agl("train", "config.yaml", "--set", "tasks.trian=x.csv").stderr
    result = agl("train", "config.yaml", "--set", "tasks.limit=2", "--set", "store=sqlite:///other.db")
    assert "step 2/2" in result.stderr
    assert "--store sqlite:///other.db)" in result.stdout


def test_no_config_is_a_usage_error(agl: Agl) -> None:
    assert agl("train").exit_code == 2
    result = agl("train", "nothing.yaml")
    assert (result.exit_code, result.stderr.startswith("error: no config file at nothing.yaml")) == (2, True)


def test_a_run_that_breaks_says_what_is_saved_and_how_to_go_on(agl: Agl, folder: Path) -> None:
    (folder / "break").touch()
    result = agl("train", "config.yaml", "--set", "seed=3")
    assert result.exit_code == 1
    assert "saved: 4 finished rollouts, the checkpoint of step 1" in result.stderr
    assert "error: RuntimeError: the loss exploded" in result.stderr
    command = next(line for line in result.stderr.splitlines() if line.startswith("go on with: "))
    (folder / "break").unlink()
    again = agl(*command.removeprefix("go on with: agl ").split())
    assert again.exit_code == 0, again.stderr
    assert [line.split()[1] for line in again.stderr.splitlines() if line.startswith("step ")] == ["2/4", "3/4", "4/4"]


@pytest.mark.parametrize("arguments", [("config.yaml", "--resume"), ("--resume", "config.yaml")])
def test_resume_goes_on_with_the_last_run(agl: Agl, folder: Path, arguments: tuple[str, str]) -> None:
    (folder / "break").touch()
    agl("train", "config.yaml")
    (folder / "break").unlink()
    assert agl("train", *arguments).exit_code == 0
    assert len([path for path in (folder / "runs").iterdir() if path.is_dir()]) == 1


def test_nothing_to_resume_is_an_error(agl: Agl) -> None:
    result = agl("train", "config.yaml", "--resume", "nothing")
    assert (result.exit_code, "there is no run nothing to resume" in result.stderr) == (2, True)


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")
def test_an_interrupt_says_what_is_saved_and_exits_130(folder: Path) -> None:
    (folder / "interrupt").touch()
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # background jobs ignore it
    start = f"{heard}; from agentlightning.cli import main; main()"
    command = [sys.executable, "-c", start, "train", "config.yaml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 130, ended.stderr
    assert "saved: 6 finished rollouts, the checkpoint of step 2" in ended.stderr
    assert "go on with: agl train config.yaml --resume words-" in ended.stderr
    assert "Traceback" not in ended.stderr
