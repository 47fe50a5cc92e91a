"""``agl judge-agreement``: what a judge's scores are worth, beside labels."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result
from judge.judged_run import judge_config, trainer, url
from judge.scripted import by_place, by_worth
from judge.test_judged_run import worth
from stub_server import StubServer

from agentlightning.cli import main
from agentlightning.records import Reward
from agentlightning.store import open_store


def agree(folder: Path, *arguments: str, run: str = "run") -> Result:
    return CliRunner().invoke(main, ["judge-agreement", run, "--store", url(folder), *arguments])


def fit(folder: Path, rewards: list[Any]) -> str:
    return asyncio.run(trainer(folder, rewards).fit_async()).run_id


def unlabelled(rollout: Any, task: Any) -> float | None:
    """A label that only some have: how long the output is."""
    return float(len(rollout.output)) if len(rollout.output) > 1 else None


@pytest.fixture
def judged(stub: StubServer, tmp_path: Path) -> Path:
    """A run whose judge ranks the longer the better, as the label `unlabelled` does."""
    stub.reply(by_worth(worth))
    fit(tmp_path, [judge_config(stub.base_url, tmp_path, samples=2), unlabelled])
    return tmp_path


def test_it_measures_against_another_reward_of_the_rollouts(judged: Path) -> None:
    result = agree(judged, "--label", "unlabelled")
    assert result.exit_code == 0, result.output
    assert "13 rollouts with judge and unlabelled; 0 that the judge could not score, 4 without a label" in result.output
    assert "Contradictions, when shown in another order: 0 of 24 pairs (0.0%)" in result.output
    assert "Judging took 9 calls, " in result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("within groups")]
    assert row.split()[2:6] == ["4", "12", "12", "1.000"]


def test_it_measures_against_a_reward_that_is_computed_of_what_is_expected(judged: Path) -> None:
    result = agree(judged, "--label", "exact_match")
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("within groups")]
    assert row.split()[2:6] == ["4", "16", "12", "1.000"]  # the longest is the expected one


def test_it_measures_against_what_users_said(judged: Path) -> None:
    async def say() -> None:
        store = open_store(url(judged))
        (run,) = await store.runs()
        for rollout in await store.rollouts(run.id, purpose="train"):
            said = Reward(name="feedback", value=float(rollout.sample < 2))
            await store.add_rewards(rollout.id, rollout.attempt, [said])
        await store.close()

    asyncio.run(say())
    result = agree(judged, "--label", "feedback")
    assert "16 rollouts with judge and feedback; 0 that the judge could not score, 1 without a label" in result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("within groups")]
    assert row.split()[5] == "0.000"  # users like the short ones


def test_a_judge_is_measured_before_anything_is_trained_with_it(stub: StubServer, tmp_path: Path) -> None:
    fit(tmp_path, [unlabelled])
    stub.reply(by_worth(worth))
    entry = msgspec.to_builtins(judge_config(stub.base_url, tmp_path, mode="absolute", scale=[0, 10]))
    (tmp_path / "judge.yaml").write_text(yaml.safe_dump({"reward": ["exact_match", entry]}))
    before = url(tmp_path)
    result = agree(tmp_path, "--label", "exact_match", "--config", str(tmp_path / "judge.yaml"))
    assert result.exit_code == 0, result.output
    assert "17 rollouts with judge and exact_match" in result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("scored alone")]
    assert row.split()[2:5] == ["4", "17", "52"]
    assert "nothing" not in result.output
    assert "0 rollouts with judge" in agree(tmp_path, "--label", "exact_match").output, f"written to {before}"


def test_a_judge_that_goes_by_the_order_is_told(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_place("A"))
    fit(tmp_path, [judge_config(stub.base_url, tmp_path, mode="pairwise", scale=[0, 10]), unlabelled])
    result = agree(tmp_path, "--label", "unlabelled")
    assert "Contradictions, when shown in another order: 24 of 24 pairs (100.0%), which count as ties" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "exakt_match"), "exakt_match"),
        (("--label", "unlabelled", "--config", "nowhere.yaml"), "nowhere.yaml cannot be read"),
        (("--label", "unlabelled", "--config", "{judge}"), "there is no reward 'judge' in it; there is: exact_match"),
    ],
)
def test_what_is_not_there_is_named(judged: Path, arguments: tuple[str, ...], message: str) -> None:
    other = judged / "other.yaml"
    other.write_text("reward: exact_match\n")
    result = agree(judged, *(one.format(judge=other) for one in arguments))
    assert result.exit_code != 0
    assert message in result.output


def test_labels_that_are_all_the_same_say_nothing(judged: Path) -> None:
    async def praise() -> None:
        store = open_store(url(judged))
        (run,) = await store.runs()
        for rollout in await store.rollouts(run.id):
            await store.add_rewards(rollout.id, rollout.attempt, [Reward(name="feedback", value=1.0)])
        await store.close()

    asyncio.run(praise())
    assert "No two rollouts have different labels (feedback)" in agree(judged, "--label", "feedback").output
