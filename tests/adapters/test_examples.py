"""The examples: what their READMEs show, and three steps of GRPO on a tiny model."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from adapters.examples import EXAMPLES, FOLDER
from adapters.framework import absent

from agentlightning.records import Rollout, Span
from agentlightning.store import open_store
from agentlightning.transitions import build_rows


@pytest.fixture(params=EXAMPLES)
def name(request: pytest.FixtureRequest) -> str:
    if missing := absent(EXAMPLES[request.param].packages):
        pytest.skip(f"{', '.join(missing)} not installed")
    return request.param


def test_the_agent_knows_nothing_of_who_trains_it(name: str) -> None:
    assert "agentlightning" not in (FOLDER / name / "agent.py").read_text(encoding="utf-8")


def test_the_readme_shows_the_agent_and_what_is_recorded(name: str) -> None:
    readme = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    agent = (FOLDER / name / "agent.py").read_text(encoding="utf-8")
    for shown in re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[0].split("\n\n"):
        assert shown.strip() in agent
    command = [sys.executable, str(Path(__file__).with_name("outline.py")), name]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"```\n{printed}```" in readme


def agl(command: str, name: str, folder: Path, model: Path, heading: str = "") -> subprocess.CompletedProcess[str]:
    """``agl COMMAND`` on a copy of the example, its agent under a ``heading``, with a tiny model."""
    shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs", "__pycache__"))
    agent = folder / "agent.py"
    agent.write_text(heading + agent.read_text(encoding="utf-8"), encoding="utf-8")
    settings = {
        "tasks": FOLDER / "tasks.jsonl",
        "algorithm.model.path": model,
        "algorithm.model.chat_template": model / "chat_template.jinja",
        "algorithm.batch_tasks": 2,
        "algorithm.group_size": 4,
        "store": "sqlite:///store.db",
    }
    overrides = [f"--set={key}={value}" for key, value in settings.items()]
    program = str(Path(sys.executable).with_name("agl"))
    return subprocess.run(
        [program, command, "config.yaml", *overrides], cwd=folder, capture_output=True, text=True, check=False
    )


def train(name: str, folder: Path, model: Path, heading: str = "") -> str:
    """Trains the example's agents; returns what is printed."""
    ran = agl("train", name, folder, model, heading)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


async def rollouts_of(folder: Path) -> list[tuple[Rollout, list[Span]]]:
    """Every rollout of training with its spans."""
    store = open_store(f"sqlite:///{folder}/store.db")
    try:
        (run,) = await store.runs()
        rollouts = await store.rollouts(run.id, purpose="train")
        return [(rollout, await store.spans(rollout.id)) for rollout in rollouts]
    finally:
        await store.close()


def check_calls(name: str, rollout: Rollout, spans: list[Span]) -> set[str | None]:
    """Every model call is a transition of the agent whose instructions it was given; returns those agents."""
    calls = sorted((span for span in spans if span.kind == "llm"), key=lambda span: span.index)
    transitions = [transition for row in build_rows(rollout, spans) for transition in row.transitions]
    assert sorted(transition.span_id for transition in transitions) == sorted(span.id for span in calls)
    assert all(transition.end > transition.start > 0 for transition in transitions)
    by_id = {span.id: span for span in spans}
    for span in calls:
        assert span.generation is not None
        assert span.generation.provenance == "exact"
        assert EXAMPLES[name].instructions[span.agent] in span.generation.messages[0]["content"]
        above = by_id.get(span.parent_id)
        while above is not None and (above.kind, above.name) != ("agent", span.agent):
            above = by_id.get(above.parent_id)
        assert above is not None, "the call is in its agent"
    return {span.agent for span in calls}


needs_grpo = pytest.mark.skipif(find_spec("agentlightning_grpo") is None, reason="trains with agentlightning-grpo")


def check_report(name: str, printed: str) -> None:
    """The first rollout names the agents and where their calls went."""
    said = " ".join(printed.split())
    called = set(re.findall(r"(\w+) \(trained\): \d+ calls? to policy", said))
    assert called <= set(EXAMPLES[name].instructions)
    assert " error " not in said
    if name == "openai-agents":  # what is cut off ends a run of the responses API: that is a warning
        assert "solver" in called
    else:
        assert called == set(EXAMPLES[name].instructions)


@needs_grpo
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(absent(EXAMPLES["langgraph"].packages)), reason="langgraph or its adapter not installed")
def test_a_check_runs_the_agent_and_keeps_nothing(tiny_model: Path, tmp_path: Path) -> None:
    ran = agl("check", "langgraph", tmp_path, tiny_model)
    check_report("langgraph", ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not (tmp_path / "store.db").exists()


@needs_grpo
@pytest.mark.timeout(600)
def test_every_model_call_of_three_steps_becomes_a_transition_under_its_agents_name(
    name: str, tiny_model: Path, tmp_path: Path
) -> None:
    check_report(name, train(name, tmp_path, tiny_model))
    found = asyncio.run(rollouts_of(tmp_path))
    assert len(found) == 3 * 2 * 4, "steps, tasks, runs of each"
    agents = [check_calls(name, rollout, spans) for rollout, spans in found]
    expected = set(EXAMPLES[name].instructions)
    if name == "openai-agents":  # A tiny model's answers are cut off, with which the responses API ends a run.
        assert all("solver" in seen <= expected for seen in agents)
    else:
        assert all(seen == expected for seen in agents)


@needs_grpo
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    bool(absent(EXAMPLES["openai-agents"].packages)), reason="openai-agents or its adapter not installed"
)
def test_the_openai_agents_sdk_may_use_the_chat_api(tiny_model: Path, tmp_path: Path) -> None:
    heading = 'from agents import set_default_openai_api\n\nset_default_openai_api("chat_completions")\n'
    train("openai-agents", tmp_path, tiny_model, heading)
    found = asyncio.run(rollouts_of(tmp_path))
    assert {agent for one in found for agent in check_calls("openai-agents", *one)} == {"solver", "checker"}
