"""A run of `few_shot` from end to end: a real run, a real store, a real endpoint."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prompt.adding_agent import (
    SYSTEM,
    agent_of,
    demonstrations_in,
    found_in,
    model,
    tasks,
    trainer,
    url,
)
from stub_answers import Received, text
from stub_server import StubServer

from agentlightning.errors import AlgorithmError
from agentlightning.records import Generation, Prompt, Reward, Rollout, Span, Task
from agentlightning.run import TrainingRun
from agentlightning.store import RunRecord, open_store
from agentlightning.store.base import Metric, Recorded
from agentlightning.trainer import FitResult
from agentlightning_prompt.few_shot import FILE


async def fit(folder: Path, server: StubServer, **options: Any) -> Any:
    return await asyncio.to_thread(trainer(folder, server, **options).fit)


@dataclass
class Done:
    """A run of 150 rollouts with a model that demonstrations help, and what it left."""

    result: FitResult
    rollouts: list[Rollout]
    prompt: Prompt
    metrics: list[Metric]
    requests: list[Received]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("done")
    with StubServer() as server:
        server.reply(model())
        result = trainer(folder, server, budget=150).fit()
        rollouts, (prompt,), metrics = asyncio.run(found_in(folder, result.run_id))
        return Done(result, rollouts, prompt, metrics, list(server.requests))


def test_demonstrations_that_help_are_published_and_applied(done: Done) -> None:
    assert len(done.prompt.demonstrations) == 4
    assert done.prompt.template is None
    (comparison,) = done.result.comparisons
    assert comparison.difference > 0.3
    assert comparison.p < 0.01
    assert done.result.results["demonstrations"].startswith("4 for agent: ")
    shown = [message for one in done.prompt.demonstrations for message in one]
    after = [request for request in done.requests if demonstrations_in(request) == shown]
    assert len(after) >= len(tasks(20))


def test_no_demonstration_asks_what_is_validated_or_held_out(done: Done) -> None:
    asked = {task.id: task.input for task in tasks(60)}
    validated = {asked[rollout.task_id] for rollout in done.rollouts if rollout.purpose == "validate"}
    shown = {one[0]["content"] for one in done.prompt.demonstrations}
    assert shown <= set(asked.values()) - validated


def test_candidates_are_compared_on_the_same_tasks_and_the_best_is_confirmed_on_others(done: Done) -> None:
    by_round: dict[int, dict[str, set[str]]] = {}
    for rollout in done.rollouts:
        if rollout.purpose == "validate":
            by_round.setdefault(rollout.step, {}).setdefault(rollout.variant, set()).add(rollout.task_id)
    for candidates in by_round.values():
        assert "none" in candidates
        assert len({frozenset(of) for of in candidates.values()}) == 1
    *chosen_by, confirmed_by = [set.union(*candidates.values()) for _, candidates in sorted(by_round.items())]
    assert confirmed_by.isdisjoint(set.union(*chosen_by))


def test_later_batches_run_with_the_best_found_so_far(done: Done) -> None:
    batches = [[one for one in done.rollouts if one.collection == f"bootstrap/{number}"] for number in (1, 2)]
    assert not any(rollout.resources for rollout in batches[0])
    assert batches[1]
    assert all(rollout.resources for rollout in batches[1])
    rewards = {metric.step: metric.value for metric in done.metrics if metric.name == "reward"}
    assert rewards[2] > rewards[1]


def test_metrics_say_how_far_the_search_is(done: Done) -> None:
    candidates = [metric.value for metric in done.metrics if metric.name == "candidates"]
    assert candidates == sorted(candidates, reverse=True)
    assert candidates[-1] == 1
    last = {metric.name: metric.value for metric in done.metrics if metric.step == done.metrics[-1].step}
    assert last["validation_best"] > last["validation_none"]


async def test_demonstrations_that_change_nothing_are_a_tie_and_none_is_published(
    tmp_path: Path, stub: StubServer
) -> None:
    stub.reply(model(helps=lambda answer: False))
    result = await fit(tmp_path, stub)
    _, prompts, _ = await found_in(tmp_path, result.run_id)
    assert prompts == []
    assert result.results["demonstrations"].startswith("none: no better than without: ")
    assert result.comparisons == []


@pytest.mark.parametrize("budget", [10, 40, 90])
async def test_the_budget_is_kept_to_the_rollout(tmp_path: Path, stub: StubServer, budget: int) -> None:
    stub.reply(model())
    result = await fit(tmp_path, stub, budget=budget)
    rollouts, prompts, _ = await found_in(tmp_path, result.run_id)
    assert len(rollouts) <= budget
    assert result.status == "succeeded"
    assert ("none" in result.results["demonstrations"]) == (prompts == [])
    assert ("stopped" in result.results) == (budget == 10)


async def test_a_run_that_was_cut_off_goes_on_with_what_was_paid_for(
    tmp_path: Path, stub: StubServer, done: Done
) -> None:
    stub.reply(model())
    original, seen = TrainingRun.evaluate, 0

    async def cut_off(self: TrainingRun, **options: Any) -> Any:
        nonlocal seen
        seen += options.get("purpose") == "validate"
        if seen == 5:
            raise AlgorithmError("cut off")
        return await original(self, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingRun, "evaluate", cut_off)
        with pytest.raises(AlgorithmError, match="cut off"):
            await fit(tmp_path, stub, budget=150)
    result = await asyncio.to_thread(lambda: trainer(tmp_path, stub, budget=150).fit(resume=True))
    rollouts, (prompt,), _ = await found_in(tmp_path, result.run_id)
    assert Counter(one.task_id for one in rollouts) == Counter(one.task_id for one in done.rollouts)
    assert prompt == done.prompt


async def test_another_seed_chooses_others(tmp_path: Path, stub: StubServer, done: Done) -> None:
    stub.reply(model())
    result = await fit(tmp_path, stub, seed=1, budget=150)
    _, (prompt,), _ = await found_in(tmp_path, result.run_id)
    assert prompt.demonstrations != done.prompt.demonstrations


async def test_where_nothing_is_good_the_error_says_what_was_best_and_what_to_do(
    tmp_path: Path, stub: StubServer
) -> None:
    stub.reply(lambda request: text("I cannot say."))
    with pytest.raises(AlgorithmError, match=r"of 16 rollouts the best has the outcome 0, .*bootstrap_rollouts"):
        await fit(tmp_path, stub, bootstrap_rollouts=16)
    with pytest.raises(AlgorithmError, match=r"threshold asks for 2"):
        await fit(tmp_path, stub, bootstrap_rollouts=16, threshold=2.0)


async def test_what_was_chosen_can_be_given_by_hand_to_another_run(
    tmp_path: Path, stub: StubServer, done: Done
) -> None:
    stub.reply(model())
    file = Path(done.result.directory) / FILE
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4
    result = await fit(tmp_path, stub, labelled=str(file), batch_tasks=16)
    rollouts, (prompt,), _ = await found_in(tmp_path, result.run_id)
    shown = [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert all(one in shown for one in prompt.demonstrations)
    assert sum(rollout.purpose == "train" for rollout in rollouts) == 2  # which show that there is a role


async def test_demonstrations_come_from_a_live_run(tmp_path: Path, stub: StubServer) -> None:
    def of(task: Task, right: bool) -> Recorded:
        rollout = Rollout(
            id=f"live-{task.id}", run_id="live", group_id=task.id, task_id=task.id, purpose="observe", attempt=1,
            status="succeeded", rewards=[Reward(name="thumb", value=float(right))],
        )  # fmt: skip
        asked = [{"role": "system", "content": "Another."}, {"role": "user", "content": task.input}]
        answer = {"role": "assistant", "content": task.expected if right else "?"}
        call = Generation(messages=asked, response=answer)
        span = Span(rollout_id=rollout.id, kind="llm", name="chat", agent="elsewhere", generation=call)
        return Recorded(task=task, rollout=rollout, spans=[span])

    store = open_store(url(tmp_path))
    # The first held-out tasks were asked by users, too; they are no demonstrations.
    live = [of(task, right=place % 2 == 0) for place, task in enumerate([*tasks(4, start=100), *tasks(12, start=500)])]
    await store.add_recorded(RunRecord(id="live", name="live", algorithm="live", status="live"), live)
    await store.close()
    stub.reply(model())
    result = await fit(tmp_path, stub, from_live={"run": "live"}, batch_tasks=16)
    _, (prompt,), _ = await found_in(tmp_path, result.run_id)
    assert {one[0]["content"] for one in prompt.demonstrations} <= {task.input for task in tasks(12, start=500)[::2]}
    assert all(message["role"] != "system" for one in prompt.demonstrations for message in one)


async def test_examples_in_the_agents_code_stay_and_are_not_shown_twice(tmp_path: Path, stub: StubServer) -> None:
    own = [{"role": "user", "content": "0 + 0?"}, {"role": "assistant", "content": "zero"}]
    stub.reply(model(helps=lambda answer: answer != "zero"))
    result = await fit(tmp_path, stub, agent=agent_of(stub.base_url, examples=own))
    _, (prompt,), _ = await found_in(tmp_path, result.run_id)
    assert all(len(one) == 2 and one[0]["content"] != "0 + 0?" for one in prompt.demonstrations)
    last = stub.requests[-1].json["messages"]
    assert last[0] == {"role": "system", "content": SYSTEM}
    assert last[-3:-1] == own
