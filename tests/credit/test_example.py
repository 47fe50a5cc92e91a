"""The example ``deciding_step``: its configs load, differ in credit alone, and its teams take what its tickets say."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from agentlightning import Trainer
from agentlightning.config import load_config
from agentlightning.credit import load_credit

pytest.importorskip("langchain_openai")
pytest.importorskip("agentlightning_langgraph")

EXAMPLE = Path(__file__).parents[2] / "examples" / "deciding_step"
MODULES = ("agent", "tasks", "desk")
CONFIGS = {"broadcast": "Broadcast", "gigpo": "GiGPO", "replay": "Replay", "intermediate": "Discounted"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of the example with its tasks, as the current directory."""
    shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("runs", "__pycache__", "*.jsonl"))
    monkeypatch.chdir(tmp_path / "example")
    monkeypatch.syspath_prepend(str(tmp_path / "example"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    kept = {name: sys.modules.pop(name, None) for name in MODULES}
    import tasks

    tasks.write(Path())
    yield
    for name, module in kept.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_makes_its_agent_algorithm_and_rewards(name: str) -> None:
    config = load_config(f"{name}.yaml")
    Trainer.from_config(config)
    assert type(load_credit(config.algorithm["credit"])).__name__ == CONFIGS[name]


def test_the_configs_differ_in_nothing_but_how_credit_is_given() -> None:
    common = []
    for name in CONFIGS:
        config = load_config(f"{name}.yaml")
        own = {"credit", "lr"}
        common.append((config.agent, config.tasks, {k: v for k, v in config.algorithm.items() if k not in own}))
    assert all(one == common[0] for one in common)


def test_each_ticket_is_taken_by_the_team_that_is_expected_and_by_no_other() -> None:
    import agent
    from langchain_core.tools import ToolException

    for line in Path("train.jsonl").read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        for team in agent.TEAMS:
            filing = {"ticket": task["input"]["ticket"], "team": team}
            if team == task["expected"]:
                assert agent.file_ticket.invoke(filing) == "accepted"
            else:
                with pytest.raises(ToolException):
                    agent.file_ticket.invoke(filing)


def test_the_agent_knows_nothing_of_who_trains_it() -> None:
    assert "agentlightning" not in (EXAMPLE / "agent.py").read_text(encoding="utf-8")
