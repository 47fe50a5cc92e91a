"""What a run leaves on the disk, and `agl prune`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentlightning.cli import main

WORK = """
import pathlib, sys

from agentlightning.algorithm import Algorithm


def agent(question):
    return question


def score(rollout, task):
    return 1.0


class Steps(Algorithm):
    async def run(self, run):
        for step in (1, 2):
            async for group in run.collect(run.tasks[:1], step=step):
                pass
            await run.checkpoint(step, {}, lambda folder: (folder / "weights").write_bytes(b"x" * 2_000_000))
            if pathlib.Path("wait").exists():
                print("waiting", flush=True)
                sys.stdin.readline()
            if pathlib.Path("break").exists():
                raise RuntimeError("broken")
        (run.directory / "model").mkdir()
        run.result("model", str(run.directory / "model"))
"""

CONFIG = """
agent: pruned_work:agent
tasks: tasks.csv
reward: pruned_work:score
algorithm: {name: "pruned_work:Steps"}
name: words
"""

Agl = Callable[..., Result]


@pytest.fixture
def agl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agl]:
    (tmp_path / "pruned_work.py").write_text(WORK)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "tasks.csv").write_text("input\none\ntwo\nthree\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)
    sys.modules.pop("pruned_work", None)


@pytest.fixture
def broken(agl: Agl, tmp_path: Path) -> Path:
    """The folder of a run that broke after its first checkpoint."""
    (tmp_path / "break").touch()
    assert agl("train", "config.yaml", "--quiet").exit_code == 1
    (tmp_path / "break").unlink()
    (run,) = tmp_path.glob("runs/words-*")
    return run


def test_a_run_that_succeeded_keeps_its_model_and_no_checkpoint(agl: Agl, tmp_path: Path) -> None:
    assert agl("train", "config.yaml", "--quiet").exit_code == 0
    (run,) = tmp_path.glob("runs/words-*")
    assert (run / "model").is_dir()
    assert not (run / "checkpoints").exists()
    assert agl("prune", "--yes").output == "no checkpoints of runs that have ended\n"


def test_a_run_that_broke_keeps_its_last_checkpoint(broken: Path) -> None:
    assert len(list((broken / "checkpoints").iterdir())) == 1


def test_prune_asks_and_says_what_it_freed(agl: Agl, broken: Path) -> None:
    asked = agl("prune", input="n\n")
    assert f"{broken.name}  failed  2 MB  {broken / 'checkpoints'}" in asked.stdout
    assert "nothing removed" in asked.stdout
    assert (broken / "checkpoints").is_dir()
    pruned = agl("prune", broken.name[:12], input="y\n")
    assert pruned.stdout.endswith("2 MB freed\n")
    assert not (broken / "checkpoints").exists()


def test_what_is_recorded_of_a_pruned_run_stays(agl: Agl, broken: Path) -> None:
    shown = agl("show", broken.name).stdout
    assert agl("prune", "--yes").exit_code == 0
    assert agl("show", broken.name).stdout == shown
    refused = agl("train", "config.yaml", "--resume")
    assert refused.exit_code == 2
    assert "`agl prune` removes checkpoints" in refused.stderr


def test_without_an_answer_nothing_is_removed(agl: Agl, broken: Path) -> None:
    assert agl("prune", input="").exit_code == 130
    assert (broken / "checkpoints").is_dir()


def test_an_unknown_run_is_an_error(agl: Agl, broken: Path) -> None:
    assert agl("prune", "nothing", "--yes").exit_code == 2
    assert (broken / "checkpoints").is_dir()


def test_a_run_that_is_going_on_is_never_touched(agl: Agl, tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    command = [sys.executable, "-c", "from agentlightning.cli import main; main()", "train", "config.yaml", "--quiet"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            (run,) = tmp_path.glob("runs/words-*")
            refused = agl("prune", run.name, "--yes")
            assert (refused.exit_code, "is going on" in refused.stderr) == (2, True)
            assert agl("prune", "--yes").output == "no checkpoints of runs that have ended\n"
            assert len(list((run / "checkpoints").iterdir())) == 1
        finally:
            process.kill()
    assert "2 MB freed" in agl("prune", "--yes").stdout, "now that its process is gone"
