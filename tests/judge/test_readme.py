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
from judge.judged_run import url
from judge.scripted import Seen, by_place, by_worth, rollouts
from stub_answers import Answer, Received
from stub_server import StubServer

from agentlightning.cli import main
from agentlightning.config import RewardConfig, decode_section
from agentlightning.plugins import plugins
from agentlightning.records import Reward, Task
from agentlightning.scoring import Scoring
from agentlightning.store import open_store
from agentlightning.store.base import RunRecord
from agentlightning_judge.config import JudgeConfig, JudgeModelConfig

README = (Path(__file__).parents[2] / "rewards/judge/README.md").read_text(encoding="utf-8")
GROUPS = 12


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def rows(head: str) -> dict[str, list[str]]:
    """A table of the README, by the first cell of each row."""
    table = README.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0].strip(): row[1:] for row in cells}


@pytest.mark.parametrize("block", range(4))
def test_the_configs_are_taken(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    given: Any = yaml.safe_load(blocks("yaml")[block])["reward"]
    entries = [
        entry if isinstance(entry, str) else decode_section(entry, RewardConfig)
        for entry in (given if isinstance(given, list) else [given])
    ]
    Scoring(entries, plugins())


def test_the_table_has_every_option_and_its_default() -> None:
    table = rows("option | default | what it is")
    assert {name.strip("`") for name in table} == {field.name for field in msgspec.structs.fields(JudgeConfig)}
    for field in msgspec.structs.fields(JudgeConfig):
        if not field.required:
            shown = yaml.safe_load(table[f"`{field.name}`"][0].strip("`"))
            assert (tuple(shown) if isinstance(shown, list) else shown) == field.default
    for field in msgspec.structs.fields(JudgeModelConfig):
        assert f"`{field.name}`" in table["`model`"][1]


def test_the_table_of_metrics_has_those_that_there_are() -> None:
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "rewards/judge").rglob("*.py"))
    named = {name for cell in rows("metric | what it is") for name in re.findall(r"`judge/(\w+)`", cell)}
    counted = {
        name for call in re.findall(r"tally\.add\((.*?)\)\n", source, re.DOTALL) for name in re.findall(r"(\w+)=", call)
    }
    assert counted == named


def test_the_example_of_the_command_is_what_it_says(stub: StubServer, tmp_path: Path) -> None:
    """Of `GROUPS` tasks, four rollouts each, whose outputs are longer the more they are worth, but for one in six; the
    judge ranks by length, and for one task in six by the order."""

    def reply(request: Received) -> Answer:
        goes_by_order = int(Seen(request).text.splitlines()[1]) % 6 == 5
        return (by_place("A") if goes_by_order else by_worth())(request)

    stub.reply(reply)
    asyncio.run(_write(stub, tmp_path))
    output = CliRunner().invoke(main, ["judge-agreement", "run", "--label", "worth", "--store", url(tmp_path)]).output
    (shown,) = blocks("text")
    assert [line.rstrip() for line in output.splitlines()] == shown.splitlines()


async def _write(stub: StubServer, folder: Path) -> None:
    store = open_store(url(folder))
    served = {"model": "judge", "base_url": stub.base_url, "input_price": 0.4, "output_price": 1.6}
    config = {"model": served, "rubric": "It is long.", "cache": None, "samples": 2}
    scoring = Scoring([RewardConfig(name="judge", config=config)], plugins())
    try:
        await store.open_run(RunRecord(id="run", name="run", algorithm="grpo"))
        await store.add_tasks("run", [Task(id=f"t{group}", input=group) for group in range(GROUPS)])
        for group in range(GROUPS):
            outputs = ["x" * (10 * sample + group + 1) for sample in range(4)]
            given = rollouts(*outputs)
            for sample, rollout in enumerate(given):
                rollout.id, rollout.task_id, rollout.group_id = f"{group}-{sample}", f"t{group}", f"g{group}"
                swapped = (group + sample) % 6 == 0
                rollout.rewards = [Reward(name="worth", value=float(-sample if swapped else sample))]
            task = Task(id=f"t{group}", input=group)
            for rollout, (rewards, _) in zip(given, await scoring.score_group(given, task, [[]] * 4), strict=True):
                rollout.rewards += rewards
            queued = [msgspec.structs.replace(one, status="queued", output=None, rewards=[]) for one in given]
            await store.enqueue(queued)
            leased = await store.lease("worker", ids=[one.id for one in given], limit=4)
            for rollout, one in zip(given, leased, strict=True):
                rollout.attempt = one.attempt
                await store.finish(rollout)
    finally:
        await store.close()
