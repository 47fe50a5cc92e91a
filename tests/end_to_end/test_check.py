"""`agl check`, with a tiny model: it names the fault of an agent, and says what an agent without one does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from faults import FAULTS, Fault, lay_out, overrides

from agentlightning.cli import main
from agentlightning.store import open_store

OWN_ENDPOINT = "http://127.0.0.1:9/v1"
"""Where nobody answers: a call that is not redirected fails."""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    lay_out(tmp_path, tiny_model)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("OPENAI_BASE_URL", OWN_ENDPOINT)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    yield tmp_path
    sys.modules.pop("faulty", None)


def agl(command: str, fault: Fault) -> tuple[int, str]:
    """The exit code, and all that is said in one line."""
    settings = [part for override in overrides(fault) for part in ("--set", override)]
    ended = CliRunner().invoke(main, [command, "config.yaml", *settings])
    return ended.exit_code, " ".join(ended.output.split())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_and_nothing_is_left_behind(folder: Path, fault: Fault) -> None:
    exit_code, said = agl("check", fault)
    assert fault.said in said
    assert exit_code == fault.exit_code
    assert "Traceback" not in said
    assert not (folder / "runs").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["train matches nobody", "the agent raises", "the prompt is too long"])
def test_a_run_ends_with_the_fault_after_its_first_rollout(folder: Path, name: str) -> None:
    exit_code, said = agl("train", FAULTS[name])
    assert exit_code != 0
    assert f"error: {FAULTS[name].said.partition(' (')[0]}" in said or FAULTS[name].said in said
    assert "Traceback" not in said
    assert asyncio.run(purposes_in(folder)) == ["check"]


async def purposes_in(folder: Path) -> list[str]:
    store = open_store(f"sqlite:///{folder}/runs/agentlightning.db")
    try:
        (run,) = await store.runs()
        return [rollout.purpose for rollout in await store.rollouts(run.id)]
    finally:
        await store.close()
