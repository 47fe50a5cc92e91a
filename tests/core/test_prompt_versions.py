"""``agl prompts --diff``: what a run made of its prompts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from click.testing import CliRunner

from agentlightning.cli.app import main
from agentlightning.cli.prompt_versions import difference, first_of, versions_of
from agentlightning.records import Prompt, Reward, Rollout
from agentlightning.store import open_store
from agentlightning.store.base import RunRecord

OWN = Prompt(name="solver", template="Solve it.\nBe brief.")
TRIED = Prompt(name="solver", version=1, template="Solve it.\nBe long.")
BEST = Prompt(name="solver", version=2, template="Solve it step by step.\nBe brief.")
SHOWN = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]


def rollout(number: int, prompt: Prompt, value: float | None) -> Rollout:
    return Rollout(
        id=f"r{number}",
        run_id="run1",
        group_id="g",
        task_id="t",
        purpose="validate",
        status="succeeded",
        resources={prompt.name: prompt.digest},
        rewards=[Reward(name="score", value=value)],
    )


def test_a_version_has_its_rollouts_and_the_mean_of_those_that_were_scored() -> None:
    rollouts = [rollout(1, TRIED, 0.0), rollout(2, TRIED, 1.0), rollout(3, TRIED, None), rollout(4, BEST, 1.0)]
    (own, tried, best) = versions_of([OWN, TRIED, BEST], {"solver": BEST.digest}, rollouts)["solver"]
    assert (own.rollouts, own.mean, own.published) == (0, None, False)
    assert (tried.rollouts, tried.mean, tried.published) == (3, 0.5, False)
    assert (best.rollouts, best.mean, best.published) == (1, 1.0, True)


def test_a_prompt_that_has_no_first_version_is_compared_with_what_the_agent_says_by_itself() -> None:
    only = Prompt(name="solver", version=1, replaces="Solve it.", demonstrations=(SHOWN,))
    (version,) = versions_of([only], {"solver": only.digest}, [])["solver"]
    assert difference(first_of([version]).prompt, only) == [
        "@@ -1 +1,4 @@",
        " Solve it.",
        "+[demonstration 1]",
        "+user: 1 + 1?",
        "+assistant: 2",
    ]


def test_a_prompt_that_was_published_as_it_was_is_unchanged() -> None:
    (version,) = versions_of([OWN], {"solver": OWN.digest}, [])["solver"]
    assert difference(first_of([version]).prompt, version.prompt) == []


def run_with_prompts(folder: Path) -> str:
    async def write() -> None:
        store = open_store(f"sqlite:///{folder}/runs.db")
        run = await store.open_run(RunRecord(id="run1", name="r", algorithm="gepa", resources={"solver": BEST.digest}))
        for prompt in (OWN, TRIED, BEST):
            await store.put_resource(run.id, prompt)
        await store.enqueue([rollout(1, BEST, 1.0)])
        await store.close()

    asyncio.run(write())
    return f"sqlite:///{folder}/runs.db"


def test_the_first_version_is_compared_with_the_published_one(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["prompts", "run1", "--diff", "--store", run_with_prompts(tmp_path)])
    assert "-Solve it.\n" in found.output
    assert "+Solve it step by step.\n" in found.output
    assert "Be long." not in found.output
    assert "1 more was tried" in found.output


def test_all_shows_what_else_was_tried(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["prompts", "run1", "--diff", "--all", "--store", run_with_prompts(tmp_path)])
    assert "+Be long.\n" in found.output
    assert "version 0 → 2 (1 rollout, mean outcome 1.000, published)" in found.output
