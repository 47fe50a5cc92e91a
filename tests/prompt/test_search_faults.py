"""What goes wrong in a search over prompts: a candidate that loses a variable, a reward that raises, a model that
reflects badly or not at all, a run that is cut off."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import rule_tasks
from prompt_runs import candidates_of, metrics_of, rollouts_of
from stub_answers import Answer, Received, error, text
from stub_server import StubServer

from agentlightning import Task
from agentlightning.errors import AlgorithmError, BudgetError, ConfigError
from agentlightning.records import Rollout

ALL = "Rules: apple brick cloud drum eagle fern. Answer {question}."


def fit(folder: Path, stub: StubServer, **options: Any) -> Any:
    return asyncio.to_thread(rule_tasks.trainer(folder, stub, **options).fit)


async def test_a_candidate_that_lost_a_variable_is_refused_before_it_is_run_and_asked_for_again(
    tmp_path: Path, stub: StubServer
) -> None:
    stub.reply(text("```\nRules: apple brick\n```"), text(f"```\n{ALL}\n```"))
    result = await fit(tmp_path, stub, agent=rule_tasks.agent_with_a_field, steps=1)
    first, second = (request.json["messages"] for request in stub.requests)
    assert "Keep the fields {question} as they are" in first[0]["content"]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert "it lost {question}" in second[-1]["content"]
    accepted = [candidate["rules"] for candidate in candidates_of(tmp_path, result.run_id)]
    assert accepted == [rule_tasks.FIELDED, ALL]
    assert all(rollout.failure is None for rollout in await rollouts_of(tmp_path, result.run_id))


@pytest.mark.parametrize("algorithm", ["gepa", "apo"])
async def test_only_prompts_that_keep_their_variables_are_ever_run(
    tmp_path: Path, stub: StubServer, algorithm: str
) -> None:
    wrong = ["Rules: brick", "Rules: {answer} {question}", "Rules: {question"]
    stub.reply(lambda request: text("".join(f"<START>{it}<END>```{it}```" for it in wrong[:1])))
    result = await fit(tmp_path, stub, agent=rule_tasks.agent_with_a_field, name=algorithm, steps=2, minibatch=3)
    assert result.results["prompts"].startswith("unchanged")
    metrics = await metrics_of(tmp_path, result.run_id)
    assert metrics["reflection_unusable"] > 0
    assert all(rollout.failure is None for rollout in await rollouts_of(tmp_path, result.run_id))


async def test_what_a_reward_cannot_score_decides_nothing(tmp_path: Path, stub: StubServer) -> None:
    def fragile(rollout: Rollout, task: Task) -> float:
        if rollout.output == "right" and int(task.id[1:]) % 7 == 0:
            raise ValueError("no score for this")
        return rule_tasks.score(rollout, task)

    stub.reply(rule_tasks.reflect)
    result = await fit(tmp_path, stub, reward=fragile, steps=6)
    metrics = await metrics_of(tmp_path, result.run_id)
    assert metrics["candidate_rollouts_unscored"] > 0
    assert metrics["candidates"] > 1
    assert 0 < metrics["validation_reward"] <= 1
    assert "→" in result.results["prompts"]


async def test_where_nothing_can_be_scored_the_run_says_so_before_it_asks_anybody(
    tmp_path: Path, stub: StubServer
) -> None:
    def never(rollout: Rollout, task: Task) -> float:
        if rollout.purpose == "check":
            return 1.0
        raise ValueError("no score for this")

    with pytest.raises(AlgorithmError, match=r"no validation task could be scored.*ValueError: no score for this"):
        await fit(tmp_path, stub, reward=never)
    assert stub.requests == []


@pytest.mark.parametrize(
    ("reply", "counted"),
    [
        pytest.param(text("I would not change anything."), "reflection_unusable", id="no block"),
        pytest.param(text(""), "reflection_unusable", id="nothing"),
        pytest.param(text("```\n" + "and so on " * 500), "reflection_unusable", id="endless"),
        pytest.param(error(500, "out of order"), "reflection_failed", id="an error"),
    ],
)
async def test_a_model_that_gives_nothing_usable_is_asked_so_often_and_the_run_ends_well(
    tmp_path: Path, stub: StubServer, reply: Any, counted: str
) -> None:
    stub.reply(lambda request: reply)
    result = await fit(tmp_path, stub)
    metrics = await metrics_of(tmp_path, result.run_id)
    assert metrics[counted] == metrics["reflection_calls"] == len(stub.requests) == 5 * 3
    assert "gave nothing that can be used in 5 steps in a row" in result.results["stopped"]
    assert result.results["prompts"].startswith("unchanged")


async def test_a_model_that_does_not_answer_in_time_is_given_up(tmp_path: Path, stub: StubServer) -> None:
    never = threading.Event()
    stub.reply(lambda request: Answer(text("late").choices, hold=never))
    try:
        model = {"model": "slow", "base_url": stub.base_url, "retries": 0, "timeout": 0.05, "attempts": 2}
        result = await fit(tmp_path, stub, reflection=model, steps=2)
    finally:
        never.set()
    metrics = await metrics_of(tmp_path, result.run_id)
    assert metrics["reflection_failed"] == 4


@pytest.mark.parametrize("budget", [None, 40])
async def test_a_run_that_was_cut_off_goes_on_to_the_same_end_and_asks_nothing_twice(
    tmp_path: Path, stub: StubServer, budget: int | None
) -> None:
    stub.reply(rule_tasks.reflect)
    whole = await fit(tmp_path / "whole", stub, steps=8, budget=budget)
    asked = len(stub.requests)
    stub.clear()
    cut = asyncio.Event()
    loop = asyncio.get_running_loop()
    never = threading.Event()

    def dies(request: Received) -> Answer:
        if len(stub.requests) < 3:
            return rule_tasks.reflect(request)
        loop.call_soon_threadsafe(cut.set)
        return Answer(text("").choices, hold=never)

    stub.reply(dies)
    running = asyncio.ensure_future(rule_tasks.trainer(tmp_path / "cut", stub, steps=8, budget=budget).fit_async())
    await asyncio.wait([running, asyncio.ensure_future(cut.wait())], return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    never.set()
    assert not any(_runs(frame, "gepa") for frame in sys._current_frames().values())
    before = len(stub.requests) - 1
    stub.clear()
    stub.reply(rule_tasks.reflect)
    result = await rule_tasks.trainer(tmp_path / "cut", stub, steps=8, budget=budget).fit_async(resume=True)
    assert before + len(stub.requests) == asked
    assert candidates_of(tmp_path / "cut", result.run_id) == candidates_of(tmp_path / "whole", whole.run_id)
    assert result.results["prompts"] == whole.results["prompts"]
    ours = await rollouts_of(tmp_path / "cut", result.run_id)
    theirs = await rollouts_of(tmp_path / "whole", whole.run_id)
    assert sorted((it.collection, it.task_id) for it in ours) == sorted((it.collection, it.task_id) for it in theirs)


def _runs(frame: FrameType | None, package: str) -> bool:
    while frame is not None:
        if f"/{package}/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


async def test_a_reply_that_a_crash_cut_off_in_the_file_is_asked_for_again(tmp_path: Path, stub: StubServer) -> None:
    from agentlightning_prompt.reflection import ReflectionConfig, Reflector

    config = ReflectionConfig(model="m", base_url=stub.base_url)
    messages = [{"role": "user", "content": "?"}]
    first = Reflector(config, tmp_path)
    await first.ask(messages, str, key="1")
    await first.ask(messages, str, key="2")
    await first.aclose()
    path = tmp_path / "reflections.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = Reflector(config, tmp_path)
    assert await again.ask(messages, str, key="1") == await again.ask(messages, str, key="2") == "Hello."
    await again.aclose()
    assert len(stub.requests) == 3
    assert [json.loads(line)["text"] for line in path.read_bytes().split(b"\n")[::2]] == ["Hello.", "Hello."]


async def test_too_small_a_budget_is_refused_before_anything_is_run(tmp_path: Path, stub: StubServer) -> None:
    with pytest.raises(BudgetError, match=r"6 rollouts, and 5 are left.*lower algorithm.validation_tasks"):
        await fit(tmp_path, stub, budget=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reflection": "policy"}, r"algorithm.reflection: policy is the run's own model, and there is none"),
        ({"temperature": 0.5}, r"algorithm.temperature: has an effect only where the agents call a model"),
        ({"validation_tasks": 17}, r"of 18 training tasks 17 to choose by leave too few"),
        ({"prompts": ["rule"]}, r"no prompt 'rule'.*did you mean 'rules'"),
        ({"reflection": {"model": "m", "api_key_env": "NO_SUCH_KEY"}}, "NO_SUCH_KEY"),
    ],
)
async def test_a_wrong_option_is_refused(
    tmp_path: Path, stub: StubServer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, AlgorithmError), match=message):
        await fit(tmp_path, stub, **options)
