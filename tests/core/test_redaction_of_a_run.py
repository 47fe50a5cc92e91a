"""A whole run, by command: its secrets stand nowhere on the screen, in its files, or in what is shown of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

AGL = (sys.executable, "-c", "from agentlightning.cli import main; main()")
VARIABLE, OPTION = "key-of-the-environment-1", "key-of-the-algorithm-2"

AGENT = f"""
import logging

from agentlightning import annotate
from agentlightning.algorithm import Algorithm
from agentlightning.config import Section


class Client:
    def __repr__(self):
        return "Client({VARIABLE})"


def answer(question):
    annotate("asked", client=Client(), url="https://host?key={VARIABLE}")
    logging.getLogger("some.library").warning("asking https://host?key={VARIABLE}")
    if question == "fail":
        raise ValueError("who is {VARIABLE}?")
    return {{"client": Client()}}


class Learning(Algorithm):
    class Config(Section):
        api_key: str

    async def run(self, run):
        await run.evaluate(step=0)
        raise RuntimeError(f"{{self.config.api_key}} was refused")
"""

CONFIG = f"""
agent: my_keys:answer
tasks: {{train: train.csv, held_out: held_out.csv}}
reward: my_keys:one
algorithm: {{name: "my_keys:Learning", api_key: {OPTION}}}
name: keys
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_keys.py").write_text(f"{AGENT}\n\ndef one(rollout, task):\n    return 1.0\n")
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "train.csv").write_text("input\none\nthree\n")
    (tmp_path / "held_out.csv").write_text("input\ntwo\nfail\n")
    return tmp_path


def agl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder}:{':'.join(sys.path)}"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "STUB_API_KEY": VARIABLE, "HOME": str(folder)}
    return subprocess.run(
        [*AGL, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_run_tells_no_secret(folder) -> None:
    trained = agl(folder, "train", "config.yaml")
    assert trained.returncode == 1
    assert "RuntimeError: [redacted] was refused" in trained.stderr
    (run,) = [path for path in (folder / "runs").iterdir() if path.is_dir()]
    shown = agl(folder, "show", run.name)
    exported = agl(folder, "export", run.name, "--output", "-")
    assert "who is [redacted]?" in exported.stdout
    said = "".join(it.stdout + it.stderr for it in (trained, shown, exported))
    written = b"".join(path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()).decode("latin-1")
    assert "api_key: '[redacted]'" in shown.stdout
    assert "asking https://host?key=[redacted]" in (run / "log.txt").read_text()
    for secret in (VARIABLE, OPTION):
        assert secret not in said
        assert secret not in written
