"""Every key of `few_shot` changes what is asked, run or chosen, or is refused."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_server import FakeServer
from prompt.adding_agent import found_in, model, trainer
from stub_server import StubServer

from agentlightning.errors import ConfigError
from agentlightning_prompt.few_shot import FewShot
from agentlightning_prompt.few_shot_config import FewShotConfig

BASE: dict[str, Any] = {
    "model": {"path": "any"},
    "server": "fake_server:FakeServer",
    "validation_tasks": 12,
    "bootstrap_rollouts": 12,
    "batch_tasks": 3,
    "max_demonstration_characters": 12,
}
CHANGED: dict[str, Any] = {
    "counts": [2],
    "candidates": 1,
    "validation_tasks": 14,
    "confidence": 0.99,
    "bootstrap_rollouts": 6,
    "bootstrap_samples": 1,
    "bootstrap_temperature": 0.1,
    "batch_tasks": 6,
    "threshold": 2.0,
    "max_demonstration_characters": 8,
    "max_characters": 14,
    "labelled": "shown.jsonl",
    "from_live": {"run": "nowhere"},
    "samples": 2,
    "model": {"path": "another"},
    "engine": {"port": 1},
    "server": "forwarding",
    "temperature": 0.5,
}


@pytest.fixture(scope="module")
def unchanged() -> list[str]:
    """What the run does as it is."""
    return []


@pytest.fixture
def server(stub: StubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubServer:
    monkeypatch.setattr(FakeServer, "base_url", stub.base_url)
    monkeypatch.chdir(tmp_path)
    line = {"messages": [{"role": "user", "content": "9 + 9?"}, {"role": "assistant", "content": "18"}]}
    Path("shown.jsonl").write_text(json.dumps(line), encoding="utf-8")
    return stub


async def measured(folder: Path, stub: StubServer, options: dict[str, Any]) -> str:
    """All that a run did, or what it was refused for."""
    stub.clear()
    stub.reply(model())
    FakeServer.made.clear()
    try:
        result = await asyncio.to_thread(trainer(folder, stub, count=24, held_out=2, **options).fit)
    except Exception as error:  # noqa: BLE001 - to be refused is an effect
        return f"{type(error).__name__}: {error}"
    rollouts, prompts, _ = await found_in(folder, result.run_id)
    ran = sorted((one.collection, one.task_id, one.sample) for one in rollouts)
    asked = sorted(re.sub(r'"seed":\d+', "", request.body.decode()) for request in stub.requests)
    return repr((ran, asked, prompts, FakeServer.made, result.results.get("demonstrations")))


def test_every_key_is_tested() -> None:
    assert {field.encode_name for field in msgspec.structs.fields(FewShotConfig)} == CHANGED.keys()


@pytest.mark.parametrize("key", sorted(CHANGED))
async def test_a_key_has_an_effect(key: str, tmp_path: Path, server: StubServer, unchanged: list[str]) -> None:
    if not unchanged:
        unchanged.append(await measured(tmp_path / "base", server, BASE))
        assert unchanged[0].startswith("("), unchanged[0]
        assert unchanged[0] == await measured(tmp_path / "again", server, BASE), "what is measured is no noise"
    assert await measured(tmp_path / "changed", server, {**BASE, key: CHANGED[key]}) != unchanged[0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a temperature of the agents' own models": ({"temperature": 0.5}, "algorithm.temperature: .* model"),
    "one to look at, too": ({"bootstrap_temperature": 0.5}, "algorithm.bootstrap_temperature"),
    "an engine of nothing": ({"engine": {"port": 1}}, "algorithm.engine"),
    "nowhere to look": ({"bootstrap_rollouts": 0}, "name labelled or from_live"),
    "samples of no rollouts": ({"labelled": "x", "bootstrap_samples": 3}, "algorithm.bootstrap_samples"),
    "a threshold for what is written by hand": ({"labelled": "x", "threshold": 1.0}, "algorithm.threshold"),
    "a threshold beside the top": ({"from_live": {"run": "x", "top": 0.1}, "threshold": 1.0}, "algorithm.threshold"),
    "a date that is none": ({"from_live": {"run": "x", "since": "soon"}}, "since: 'soon'"),
    "the same count twice": ({"counts": [2, 2]}, "algorithm.counts"),
    "no count": ({"counts": []}, "algorithm.counts"),
    "one longer than all": ({"max_demonstration_characters": 99, "max_characters": 50}, "max_demonstration_characters"),
    "an unknown key": ({"count": [2]}, "did you mean counts"),
    "a wrong type": ({"candidates": "many"}, r"algorithm\.candidates: expected int"),
}


@pytest.mark.parametrize(("options", "why"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_effect_or_no_sense_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        FewShot.from_section(options)


@pytest.mark.parametrize("validated", [11, 23])
async def test_too_few_tasks_to_compare_by_or_to_run_are_refused(
    tmp_path: Path, stub: StubServer, validated: int
) -> None:
    with pytest.raises(ConfigError, match=f"algorithm.validation_tasks: {validated} of 24 training tasks"):
        await asyncio.to_thread(trainer(tmp_path, stub, count=24, validation_tasks=validated).fit)
