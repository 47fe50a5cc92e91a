"""What the README shows is what there is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner
from finished_run import url_in
from intermediate import noted_run
from intermediate.noted_run import RUN, write
from intermediate.spans import TASK, Recording, a_rollout

from agentlightning.cli import main
from agentlightning.config import RewardConfig, decode_section
from agentlightning.plugins import plugins
from agentlightning.scoring import Scoring
from agentlightning_intermediate.reward import IntermediateConfig
from agentlightning_intermediate.signals import SIGNALS

README = (Path(__file__).parents[2] / "rewards/intermediate/README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def rows(section: str) -> list[str]:
    """The first cells of the tables of a section."""
    return re.findall(r"^\| (`.*?) \|", README.split(f"\n## {section}\n")[1].split("\n## ")[0], re.MULTILINE)


def test_the_config_is_taken() -> None:
    rewards = [
        decode_section(entry, RewardConfig)
        for entry in yaml.safe_load(blocks("yaml")[0])["reward"]
        if isinstance(entry, dict)
    ]
    assert [entry.name for entry in rewards] == ["intermediate"]
    Scoring(rewards, plugins())


def test_the_tables_have_every_signal_and_every_option() -> None:
    cells = rows("Signals")
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(named) == sorted([*SIGNALS, *IntermediateConfig.__struct_fields__])
    starred = {re.findall(r"`(\w+)`", cell)[0] for cell in cells if cell.endswith("\\*")}
    assert starred == set(IntermediateConfig().signals)


def test_the_function_for_progress_is_one() -> None:
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    run = Recording()
    call = run.answer("4")
    assert call.generation is not None
    call.generation = msgspec.structs.replace(call.generation, messages=[{"role": "tool", "content": "PASSED PASSED"}])
    assert names["tests_that_pass"](a_rollout(), TASK, call) == 0.2


def test_the_example_of_the_command_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the run that `noted_run.planted` makes."""
    pytest.importorskip("sqlglot")
    monkeypatch.chdir(tmp_path)
    asyncio.run(write(url_in(tmp_path), noted_run.planted))
    output = CliRunner().invoke(main, ["suggest-rewards", RUN]).stdout

    shown = README.split("\n## `agl suggest-rewards RUN`\n")[1].split("```text\n")[1].split("```")[0]
    assert [line.rstrip() for line in output.splitlines()] == shown.splitlines()
