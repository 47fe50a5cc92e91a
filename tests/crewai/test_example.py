"""The example: what its README shows, and three steps of GRPO on a tiny model."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from agentlightning.records import Rollout, Span
from agentlightning.store import open_store
from agentlightning.transitions import build_transitions

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "crewai"


def test_the_agent_knows_nothing_of_who_trains_it():
    assert "agentlightning" not in (EXAMPLE / "agent.py").read_text(encoding="utf-8")


def test_the_readme_shows_the_crew_and_what_is_recorded():
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    agent = (EXAMPLE / "agent.py").read_text(encoding="utf-8")
    for shown in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].split("\n\n"):
        assert shown.strip() in agent
    command = [sys.executable, str(ROOT / "tests" / "crewai" / "outline.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"```\n{printed}```" in readme


def train(folder: Path, model: Path) -> None:
    """``agl train`` on a copy of the example, with a tiny model."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    settings = {
        "algorithm.model.path": model,
        "algorithm.model.chat_template": model / "chat_template.jinja",
        "algorithm.batch_tasks": 2,
        "algorithm.group_size": 4,
        "store": "sqlite:///store.db",
    }
    overrides = [f"--set={name}={value}" for name, value in settings.items()]
    command = [str(Path(sys.executable).with_name("agl")), "train", "config.yaml", "--quiet", *overrides]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


async def recorded(folder: Path) -> list[tuple[Rollout, list[Span]]]:
    """Every rollout of training with its spans."""
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        (run,) = await store.runs()
        rollouts = [rollout for rollout in await store.rollouts(run.id) if rollout.stage.startswith("train/")]
        return [(rollout, await store.spans(rollout.id)) for rollout in rollouts]
    finally:
        await store.close()


@pytest.mark.skipif(find_spec("agentlightning_grpo") is None, reason="trains with agentlightning-grpo")
@pytest.mark.timeout(600)
def test_every_model_call_of_three_steps_becomes_a_transition_under_its_agents_name(tiny_model: Path, tmp_path: Path):
    train(tmp_path, tiny_model)
    found = asyncio.run(recorded(tmp_path))
    assert len(found) == 3 * 2 * 4, "steps, tasks, runs of each"
    for rollout, spans in found:
        calls = sorted((span for span in spans if span.kind == "llm"), key=lambda span: span.index)
        transitions = build_transitions(rollout, spans)
        assert [transition.span_id for transition in transitions] == [span.id for span in calls]
        assert {span.generation.provenance for span in calls} == {"exact"}
        assert all(len(transition.response_ids) == len(transition.logprobs) > 0 for transition in transitions)
        by_id = {span.id: span for span in spans}
        for span in calls:
            agent = by_id[span.parent_id]
            assert (agent.kind, agent.name) == ("agent", span.agent)
            assert f"You are {span.agent}." in span.generation.messages[0]["content"]
        assert {span.agent for span in calls} == {"solver", "teacher"}
