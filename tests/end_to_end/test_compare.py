"""`agl compare` over the real thing: endpoints, a tiny model that is trained, and prompts, one on top of the other."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from stub_answers import Received, text
from stub_server import StubServer

from agentlightning.budget import COUNTED
from agentlightning.cli import main
from agentlightning.records import AnyResource, ModelChoice, Policy, Prompt, Rollout
from agentlightning.store import RunRecord, open_store

pytestmark = pytest.mark.timeout(300)

CODE = '''
import msgspec
from openai import AsyncOpenAI

import agentlightning as agl
from agentlightning import Algorithm
from agentlightning.records import Prompt

client = AsyncOpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")


async def answer(question):
    style = agl.prompt("style", "plain")
    messages = [{"role": "system", "content": style}, {"role": "user", "content": question}]
    reply = await client.chat.completions.create(model="small", messages=messages, max_tokens=6)
    return {"style": style, "text": reply.choices[0].message.content or ""}


def score(rollout, task):
    """A point for the prompt, and one for something that random text gets right now and then."""
    return float(rollout.output["style"] == "good") + len(rollout.output["text"]) % 2


class Style(Algorithm):
    """Serves the model as `eval` does, and learns one thing."""

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        model: dict
        temperature: float = 1.0
        samples: int = 1

    async def run(self, run):
        from agentlightning.serving import TORCH, model_server

        server = model_server(TORCH)(self.config.model, {})
        try:
            policy = await server.start()
            await run.publish(policy.sampled_with(temperature=self.config.temperature))
            await run.evaluate(step=0, samples=self.config.samples)
            async for _ in run.collect(run.tasks[:5], step=1):
                pass
            await run.publish(Prompt(name="style", agents=(), template="good"))
            await run.evaluate(step=1, samples=self.config.samples)
        finally:
            await server.aclose()
'''
BUDGET = 20
PRICE = 1000.0


@dataclass
class Compared:
    """What the command said, what it wrote, and what is in the store."""

    output: str
    written: dict[str, Any]
    runs: dict[str, RunRecord]
    rollouts: dict[str, list[Rollout]]
    resources: dict[str, dict[str, AnyResource]]

    def row(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = next(row for row in self.written["rows"] if row["name"] == name)
        return row


def answer_of(request: Received) -> Any:
    return text("yes" if request.json["model"] == "large" else "no")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Compared]:
    folder = tmp_path_factory.mktemp("compare")
    (folder / "styles.py").write_text(CODE)
    for name, count in (("train", 12), ("held_out", 24)):
        rows = [{"id": f"{name}{number}", "input": f"question {number}"} for number in range(count)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with StubServer() as stub, pytest.MonkeyPatch.context() as patch:
        stub.reply(answer_of)
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        endpoint = {"base_url": stub.base_url, "output_price": PRICE}
        weights = {"batch_tasks": 2, "group_size": 4, "lr": 1e-3, "checkpoint_every": 0}
        config = {
            "agent": "styles:answer",
            "tasks": {"train": "train.jsonl", "held_out": "held_out.jsonl"},
            "reward": "styles:score",
            "algorithm": {"name": "grpo", "model": {"path": str(tiny_model)}, **weights},
            "compare": {
                "algorithms": {
                    "style": {"name": "styles:Style"},
                    "selection": {
                        "candidates": [{"model": "small", **endpoint}, {"model": "large", **endpoint}],
                        "minimum": 2,
                        "batch": 4,
                    },
                    "grpo": {},
                    "sft": weights,
                }
            },
            "budget": BUDGET,
            "store": "sqlite:///store.db",
            "name": "styles",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        result = CliRunner().invoke(main, ["compare", "config.yaml", "--combine", "--output", "table.json"])
        assert result.exit_code == 0, result.output
        yield asyncio.run(_read(result.output, json.loads(Path("table.json").read_text())))
        sys.modules.pop("styles", None)


async def _read(output: str, written: dict[str, Any]) -> Compared:
    store = open_store("sqlite:///store.db?mode=ro")
    try:
        runs = {run.name.removeprefix("styles/"): run for run in await store.runs()}
        rollouts = {name: await store.rollouts(run.id) for name, run in runs.items()}
        resources = {name: {it.digest: it for it in await store.resources(run.id)} for name, run in runs.items()}
        return Compared(output, written, runs, rollouts, resources)
    finally:
        await store.close()


def test_every_lever_stays_within_the_budget(compared: Compared) -> None:
    for name in ("style", "selection", "grpo", "sft", "style+grpo", "style+sft"):
        if name not in compared.runs:
            continue
        used = sum(rollout.purpose in COUNTED for rollout in compared.rollouts[name])
        assert 0 < used <= BUDGET, name
        if "+" not in name:
            assert compared.row(name)["account"]["learning"]["rollouts"] == used
    assert compared.row("grpo")["account"]["learning"]["rollouts"] == 16  # as many steps as it pays for


def test_every_lever_is_compared_on_all_held_out_tasks(compared: Compared) -> None:
    for name in ("style", "selection", "grpo", "sft"):
        row = compared.row(name)
        assert row["comparison"]["n"] == 24, row
        assert row["comparison"]["before"] == compared.written["baseline"]
    assert compared.row("style")["comparison"]["after"] > 1.0
    assert compared.row("selection")["comparison"]["after"] == 1.0
    assert compared.written["way"] == "sampled at temperature 1"


def test_the_models_of_endpoints_cost_dollars_and_those_of_this_machine_time(compared: Compared) -> None:
    selection, grpo = compared.row("selection")["account"], compared.row("grpo")["account"]
    calls = selection["learning"]
    assert calls["output_tokens"] > 0
    assert calls["dollars"] == pytest.approx(calls["output_tokens"] * PRICE / 1e6)
    assert (grpo["learning"].get("dollars", 0.0), grpo["learning"].get("unpriced", 0)) == (0.0, 0)
    assert grpo["learning"]["input_tokens"] > 0
    assert grpo["seconds"] > 0


def test_what_a_reader_should_know_is_told(compared: Compared) -> None:
    notes = compared.written["notes"]
    assert "selection was evaluated sampled as the agent asks, the baseline sampled at temperature 1" in notes
    assert any(note.startswith("selection began from something else than the baseline") for note in notes), notes
    assert not any(note.startswith(("style ", "grpo ", "sft ")) for note in notes), notes


def test_the_best_weights_are_trained_on_top_of_the_best_prompt(compared: Compared) -> None:
    (name,) = [name for name in compared.runs if "+" in name]
    assert name in ("style+grpo", "style+sft")
    known = compared.resources[name]
    trained = [rollout for rollout in compared.rollouts[name] if rollout.purpose == "train"]
    assert trained
    for rollout in trained:
        ran_with = [known[digest] for digest in rollout.resources.values()]
        assert [it.template for it in ran_with if isinstance(it, Prompt)] == ["good"]
    assert max(it.version for it in known.values() if isinstance(it, Policy)) > 0
    row, prompt = compared.row(name), compared.row("style")
    assert row["comparison"]["after"] > 1.0
    assert row["account"]["learning"]["rollouts"] == len(trained) + prompt["account"]["learning"]["rollouts"]
    assert row["account"]["seconds"] > prompt["account"]["seconds"]


def test_the_prompt_is_recommended_over_the_weights_on_top_of_it_that_gain_no_more(compared: Compared) -> None:
    (combination,) = [name for name in compared.runs if "+" in name]
    found = compared.written["recommendation"]
    assert sorted(found["tied"]) == sorted(["style", combination])
    assert found["lever"] == "style"
    assert "recommended: style" in compared.output


def test_selection_published_the_model_that_it_chose(compared: Compared) -> None:
    chosen = compared.resources["selection"][compared.runs["selection"].resources["model"]]
    assert isinstance(chosen, ModelChoice)
    assert chosen.model == "large"
