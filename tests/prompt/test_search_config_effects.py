"""Every key of a search over prompts changes what is asked, run, counted or chosen, or is refused."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import rule_tasks
from prompt_runs import metrics_of, rollouts_of
from stub_answers import Answer, Received, text
from stub_server import StubServer

from agentlightning_prompt.apo import APOConfig
from agentlightning_prompt.reflection import ReflectionConfig
from agentlightning_prompt.search import SearchConfig

GEPA: dict[str, Any] = {"name": "gepa", "steps": 2}
APO: dict[str, Any] = {
    "name": "apo",
    "steps": 2,
    "minibatch": 6,
    "beam": 2,
    "errors": 3,
    "gradients": 3,
    "paraphrases": 2,
    "successors": 3,
    "selection_rollouts": 12,
}
SHARED: dict[str, Any] = {
    "prompts": ["another"],
    "validation_tasks": 5,
    "minibatch": 2,
    "steps": 1,
    "perfect_score": 0.0,
    "show_expected": False,
    "samples": 2,
    "model": {"path": "nowhere"},
    "engine": {"port": 1},
    "server": "forwarding",
    "temperature": 0.5,
}
OF_REFLECTION: dict[str, Any] = {
    "model": "another",
    "base_url": "http://127.0.0.1:1/v1",
    "api_key_env": "A_KEY_OF_ITS_OWN",
    "temperature": 0.5,
    "max_tokens": 7,
    "attempts": 2,
    "input_price": 1.0,
    "output_price": 1.0,
}
ELSEWHERE = {
    "timeout": "test_search_faults.py: a model that does not answer in time is given up",
    "exploration": "test_apo.py: the more exploration, the more evenly are the arms run",
    "retries": "tests/judge: of agentlightning_openai.chat_model, how often a request is sent again",
}
OF_APO: dict[str, Any] = {
    "minibatch": 3,
    "steps": 1,
    "beam": 1,
    "errors": 1,
    "gradients": 1,
    "paraphrases": 0,
    "successors": 2,
    "selection": "successive_rejects",
    "selection_rollouts": 20,
}


def reflect(request: Received) -> Answer:
    """Something else for each request, by its content; GEPA gets nothing that can be used where a task is of clouds."""
    asked = request.json["messages"][0]["content"]
    if "```" in asked:
        return text("no" if "cloud question" in asked else "```\nRules: brick\n```")
    drawn = [hashlib.blake2b(f"{asked}{number}".encode(), digest_size=2) for number in range(3)]
    return text("".join(f"<START>{rule_tasks.KINDS[it.digest()[0] % 6]} {it.hexdigest()}<END>" for it in drawn))


async def measured(folder: Path, stub: StubServer, options: dict[str, Any]) -> str:
    """All that a run did, or what it was refused for."""
    stub.clear()
    stub.reply(reflect)
    try:
        trainer = rule_tasks.trainer(folder, stub, count=14, **{"validation_tasks": 4, **options})
        result = await asyncio.to_thread(trainer.fit)
    except Exception as error:  # noqa: BLE001 - to be refused is an effect
        return f"{type(error).__name__}: {error}"
    metrics = {name: value for name, value in (await metrics_of(folder, result.run_id)).items() if "sec" not in name}
    ran = sorted((it.collection, it.task_id, it.sample) for it in await rollouts_of(folder, result.run_id))
    asked = sorted(repr((it.json, it.header("authorization"))) for it in stub.requests)
    return repr((metrics, ran, asked, result.results))


@pytest.fixture(scope="module")
def unchanged() -> dict[str, str]:
    """What the runs do as they are, by algorithm."""
    return {}


async def has_effect(
    base: dict[str, Any], changed: dict[str, Any], folder: Path, stub: StubServer, unchanged: dict[str, str]
) -> bool:
    name = base["name"]
    if name not in unchanged:
        unchanged[name] = await measured(folder / "base", stub, base)
        assert unchanged[name] == await measured(folder / "again", stub, base), "what is measured is no noise"
        assert unchanged[name].startswith("("), unchanged[name]
    return await measured(folder / "changed", stub, {**base, **changed}) != unchanged[name]


def test_every_key_is_tested() -> None:
    def names(config: type[msgspec.Struct]) -> set[str]:
        return {field.encode_name for field in msgspec.structs.fields(config)}

    assert names(SearchConfig) == SHARED.keys() | {"reflection"}
    assert names(ReflectionConfig) == OF_REFLECTION.keys() | {"timeout", "retries"}
    assert names(APOConfig) - names(SearchConfig) <= OF_APO.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("key", sorted(SHARED))
async def test_a_key_of_every_search_has_an_effect(
    key: str, tmp_path: Path, stub: StubServer, unchanged: dict[str, str]
) -> None:
    assert await has_effect(GEPA, {key: SHARED[key]}, tmp_path, stub, unchanged)


@pytest.mark.parametrize("key", sorted(OF_REFLECTION))
async def test_a_key_of_the_reflection_model_has_an_effect(
    key: str, tmp_path: Path, stub: StubServer, unchanged: dict[str, str]
) -> None:
    section = {"model": "scripted", "base_url": stub.base_url, "retries": 0, key: OF_REFLECTION[key]}
    assert await has_effect(GEPA, {"reflection": section}, tmp_path, stub, unchanged)


@pytest.mark.parametrize("key", sorted(OF_APO))
async def test_a_key_of_apo_has_an_effect(
    key: str, tmp_path: Path, stub: StubServer, unchanged: dict[str, str]
) -> None:
    assert await has_effect(APO, {key: OF_APO[key]}, tmp_path, stub, unchanged)
