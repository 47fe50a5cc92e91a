"""`agl train`: the same as the Trainer, and how a run that stops is gone on with."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agentlightning.cli import main
from agentlightning.plugins import Plugins
from agentlightning.store import RunRecord, open_store

Agl = Callable[..., Result]

AGL = (sys.executable, "-c", "from agentlightning.cli import main; main()")
"""In a process of its own."""

AGENT = """
import contextlib
import os
import pathlib
import signal
import threading

from agentlightning.algorithm import Algorithm
from agentlightning.errors import AlgorithmError


def answer(question):
    if question == "five" and pathlib.Path("interrupt").exists():
        with contextlib.suppress(FileExistsError):
            pathlib.Path("sent").touch(exist_ok=False)
            os.kill(os.getpid(), int(pathlib.Path("interrupt").read_text()))
        threading.Event().wait()
    return question


def is_long(rollout, task):
    return float(len(rollout.output) > 3)


def nothing(rollout, task):
    return 0.0


class Steps(Algorithm):
    async def run(self, run):
        await run.evaluate(step=0)
        first = run.restored.step + 1 if run.restored else 1
        for step, task in enumerate(run.tasks, 1):
            if step < first:
                continue
            async for group in run.collect([task], group_size=2, step=step):
                run.log({"loss": 0.5}, step=step)
            run.progress(step=step, steps=len(run.tasks))
            await run.checkpoint(step, {})
            if pathlib.Path("break").exists():
                raise AlgorithmError("nothing to train on") if run.seed == 7 else RuntimeError("the loss exploded")
        await run.evaluate(step=len(run.tasks))
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


def test_the_last_lines_and_show_say_what_speaks_against_learning(agl: Agl, folder: Path) -> None:
    result = agl("train", "config.yaml", "--set", "reward=my_work:nothing")
    (run,) = _runs(folder)
    says = ("the rewards never varied: the reward gave 0 to each of 8 rollouts", "2 held-out tasks cannot tell whether")
    shown = agl("show", run.id).stdout
    for text in says:
        assert text in result.stdout
        assert text in shown
    assert "all rewards 0" in result.stderr
    assert "never varied" not in agl("train", "config.yaml").stdout


def test_quiet_says_nothing(agl: Agl) -> None:
    result = agl("train", "config.yaml", "--quiet")
    assert (result.exit_code, result.output) == (0, "")


def test_quiet_says_errors(agl: Agl, folder: Path) -> None:
    (folder / "break").touch()
    result = agl("train", "config.yaml", "--quiet")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error: RuntimeError: the loss exploded" in result.stderr
    assert "step" not in result.stderr.replace("checkpoint of step", "")


def test_a_run_goes_on_without_its_config_file(agl: Agl, folder: Path) -> None:
    (folder / "break").touch()
    agl("train", "config.yaml", "--set", "seed=3")
    (folder / "break").unlink()
    (folder / "config.yaml").unlink()
    (run,) = _runs(folder)
    result = agl("train", "--resume", run.id)
    assert result.exit_code == 0, result.stderr
    (after,) = _runs(folder)
    assert (after.id, after.status, after.seed) == (run.id, "succeeded", 3)


def test_going_on_without_a_config_changes_nothing_of_it(agl: Agl) -> None:
    assert "Missing argument 'CONFIG'" in agl("train", "--resume", "words", "--set", "seed=4").stderr
    assert "--set store=sqlite:///a.db names another" in agl("train", "config.yaml", "--store", "sqlite:///a.db").stderr


def test_the_curve_lies_in_the_runs_folder(agl: Agl, folder: Path) -> None:
    pytest.importorskip("matplotlib")
    result = agl("train", "config.yaml")
    (curve,) = folder.glob("runs/words-*/curve.png")
    assert f"curve  {curve.relative_to(folder)}" in result.stdout
    assert curve.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_note_takes_the_curves_place(agl: Agl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlightning.cli.curve.find_spec", lambda name: None)
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
@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("SIGINT", 130, "stopped"), ("SIGTERM", 143, "stopped by SIGTERM"), ("SIGHUP", 129, "stopped by SIGHUP")],
)
def test_a_signal_ends_the_run_and_says_what_is_saved(folder: Path, name: str, code: int, says: str) -> None:
    (folder / "interrupt").write_text(str(int(getattr(signal, name))))
    # Background jobs ignore some signals.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    heard += "; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    start = f"{heard}; from agentlightning.cli import main; main()"
    command = [sys.executable, "-c", start, "train", "config.yaml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.splitlines()[-1] == says
    assert "saved: 6 finished rollouts, the checkpoint of step 2" in ended.stderr
    assert "go on with: agl train config.yaml --resume words-" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [run.status for run in _runs(folder)] == ["cancelled"]


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)"])
def test_a_run_whose_process_is_gone_is_interrupted_and_show_says_how_to_go_on(
    agl: Agl, folder: Path, end: str
) -> None:
    (folder / "my_work.py").write_text(
        AGENT.replace("threading.Event().wait()", "pass").replace(
            'os.kill(os.getpid(), int(pathlib.Path("interrupt").read_text()))', end
        )
    )
    (folder / "interrupt").write_text("9")
    command = [*AGL, "train", "config.yaml"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    (folder / "interrupt").unlink()
    (run,) = _runs(folder)
    assert run.status == "interrupted"
    assert "interrupted" in agl("runs").stdout
    shown = agl("show", run.id).stdout
    assert "its process ended without a word" in shown
    assert f"agl train --resume {run.id}" in shown
    assert agl("train", "config.yaml", "--resume").exit_code == 0


def test_what_nobody_has_foreseen_is_one_line_and_its_traceback_lies_in_the_runs_folder(agl: Agl, folder: Path) -> None:
    (folder / "break").touch()
    result = agl("train", "config.yaml")
    assert "Traceback" not in result.output
    (log,) = folder.glob("runs/words-*/log.txt")
    assert f"the traceback is in {log.relative_to(folder)}" in result.stderr
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: the loss exploded" in text


def test_a_run_that_fails_by_our_own_error_is_exit_code_1(agl: Agl, folder: Path) -> None:
    (folder / "break").touch()
    result = agl("train", "config.yaml", "--set", "seed=7")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: nothing to train on"


NOISY = """
import logging, sys, warnings
import tqdm
warnings.warn("a library is not happy")
logging.getLogger("some.library").warning("deprecated since 1.2")
logging.getLogger("some.library").error("a telemetry endpoint is down")
for _ in tqdm.tqdm(range(3), desc="Loading weights"):
    pass
"""


def test_other_libraries_have_no_place_on_the_screen(folder: Path) -> None:
    """In a process of its own: what is said before the first import counts, too."""
    (folder / "my_work.py").write_text(NOISY + AGENT)
    command = [*AGL, "train", "config.yaml"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    for text in ("not happy", "deprecated since", "telemetry", "Loading weights"):
        assert text not in ended.stderr + ended.stdout
    (log,) = folder.glob("runs/words-*/log.txt")
    for text in ("a library is not happy", "deprecated since 1.2", "a telemetry endpoint is down"):
        assert text in log.read_text()


def _runs(folder: Path) -> list[RunRecord]:
    async def ask() -> list[RunRecord]:
        store = open_store(f"sqlite:///{folder}/runs/agentlightning.db?mode=ro")
        try:
            return await store.runs()
        finally:
            await store.close()

    return asyncio.run(ask())


def test_a_run_for_a_server_is_handed_to_whoever_registered_for_its_scheme(
    agl: Agl, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere_plugin.py").write_text(
        "from agentlightning import hookimpl\n"
        "def submit(url, config, *, quiet):\n"
        "    print(url, config.agent, config.seed, quiet)\n"
        "    return 7\n"
        "@hookimpl\n"
        "def register_submitters(register):\n"
        "    register('far', submit)\n"
    )
    found = Plugins([EntryPoint("elsewhere", "elsewhere_plugin", "agentlightning")])
    monkeypatch.setattr("agentlightning.plugins.plugins", lambda: found)
    submitted = agl("train", "config.yaml", "--set", "seed=5", "--quiet", "--server", "far://away")
    assert (submitted.exit_code, submitted.stdout) == (7, "far://away my_work:answer 5 True\n")
    for arguments, says in (
        (("config.yaml", "--server", "away"), "expected http://HOST:PORT"),
        (("config.yaml", "--server", "farther://away"), "submitter 'farther' is not installed; did you mean 'far'?"),
        (("config.yaml", "--server", "http://away"), "adapters/server"),
        (("config.yaml", "--resume", "--server", "far://away"), "agl training resume ID --server far://away"),
        (("--resume", "a-run", "--server", "far://away"), "agl training resume ID --server far://away"),
    ):
        refused = agl("train", *arguments)
        assert (refused.exit_code, says in refused.stderr.replace("\n", "")) == (2, True), refused.output
    assert not (folder / "runs").exists()
