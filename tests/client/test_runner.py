"""The runner ``clients``: what it does without an agent, whom it waits for, and the rewards that it gives, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai
import pytest
from doing import Doing
from stub_answers import Answer, Choice
from stub_server import StubServer

import agentlightning as agl
from agentlightning import Trainer, semconv
from agentlightning.config import RunnerConfig
from agentlightning.credit import BranchPoint
from agentlightning.errors import ConfigError, StoreError
from agentlightning.plugins import Plugins
from agentlightning.progress import Progress
from agentlightning.records import Policy, Rollout, Task
from agentlightning.store.sqlite import SQLiteStore
from agentlightning_client import attendance
from agentlightning_client.errors import ClientError

TASKS = [{"id": f"t{number}", "input": number} for number in range(4)]

Fit = Callable[..., Awaitable[str]]
WorkerBeside = Callable[..., Any]
Stored = Callable[..., Awaitable[Sequence[Rollout]]]


class Heard(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


async def once(run: Any) -> None:
    async for _ in run.collect(run.tasks, step=1):
        pass


@pytest.fixture
def fit(tmp_path: Path, url: str) -> Fit:
    async def run(
        body: Any,
        reward: Any = (),
        *,
        resume: bool = False,
        wait_seconds: float = 100.0,
        timeout: float = 100.0,
        concurrency: int = 64,
        **options: Any,
    ) -> str:
        config = RunnerConfig(
            name="clients", timeout=timeout, concurrency=concurrency, config={"wait_seconds": wait_seconds}
        )
        options = {"store": url, **options}
        trainer = Trainer(
            *("elsewhere:agent", TASKS, reward, Doing(body)),
            held_out=TASKS[:1],
            runner=config,
            directory=tmp_path / "runs",
            name="run",
            **options,
        )
        return (await trainer.fit_async(resume=resume or None)).run_id

    return run


async def agent(number: int) -> int:
    return number


class Counting:
    """A reward that counts how often each rollout was given it."""

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()

    def __call__(self, rollout: Rollout, task: Task) -> float:
        self.given[rollout.id] += 1
        return float(rollout.output)


async def test_a_run_that_no_worker_comes_for_says_how_to_start_one_and_ends(
    fit: Fit, url: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "NOTICE_SECONDS", 0.2)
    progress = Heard()
    with pytest.raises(ClientError, match=r"no worker has asked for a rollout of run .* for \d+ s .*wait_seconds"):
        await fit(once, wait_seconds=2.0, progress=progress)
    (said,) = progress.messages
    assert said.startswith("no worker has asked for a rollout of run run-")
    assert said.endswith(f"start one with: agl work {url} --agent elsewhere:agent")
    assert [rollout.status for rollout in await stored()] == ["queued"] * 4


async def test_a_worker_that_vanishes_with_a_rollout_is_not_waited_for_without_end(fit: Fit, url: str) -> None:
    async def body(run: Any) -> None:
        running = asyncio.create_task(once(run))
        store = SQLiteStore(url.removeprefix("sqlite:///"))
        while not await store.lease("gone", limit=4, seconds=3600.0):
            await asyncio.sleep(0)
        await store.heartbeat("gone", seconds=3600.0)
        try:
            await running
        finally:
            await store.close()

    with pytest.raises(ClientError, match="no worker has asked for a rollout"):
        await fit(body, wait_seconds=1.0, timeout=0.5)


async def test_a_worker_may_come_before_its_run_and_late(fit: Fit, worker_beside: WorkerBeside, stored: Stored) -> None:
    running = asyncio.create_task(fit(once, Counting()))
    async with worker_beside(agent):
        first = await running
        rollouts = await stored(first)
    async with worker_beside(agent):
        second = await fit(once, Counting())
        rollouts = [*rollouts, *await stored(second)]
    assert [(rollout.output, rollout.outcome) for rollout in rollouts] == [(n, float(n)) for n in range(4)] * 2


async def test_rewards_that_a_run_was_cut_off_before_are_given_when_it_goes_on_and_none_twice(
    fit: Fit, url: str, worker_beside: WorkerBeside, stored: Stored
) -> None:
    class CutOff(SQLiteStore):
        """Takes the rewards of two rollouts."""

        taken = 0

        async def add_rewards(self, *arguments: Any, **more: Any) -> bool:
            self.taken += 1
            if self.taken > 2:
                raise StoreError("cut off")
            return await super().add_rewards(*arguments, **more)

    reward = Counting()
    store = CutOff(url.removeprefix("sqlite:///"))
    async with worker_beside(agent, forever=True):
        with pytest.raises(StoreError, match="cut off"):
            await fit(once, reward, store=store, concurrency=1)
        await store.close()
        scored = {rollout.id: rollout.rewards for rollout in await stored() if rollout.rewards}
        assert len(scored) == 2
        before = Counter({id: reward.given[id] for id in scored})
        run_id = await fit(once, reward, resume=True)
    rollouts = await stored(run_id)
    assert [rollout.outcome for rollout in rollouts] == [0.0, 1.0, 2.0, 3.0]
    assert [len(rollout.rewards) for rollout in rollouts] == [1] * 4
    for rollout in rollouts:
        assert rollout.id not in scored or rollout.rewards == scored[rollout.id]
    assert {id: reward.given[id] for id in scored} == before
    assert before == Counter(dict.fromkeys(scored, 1))


async def test_a_run_that_goes_on_with_its_agent_in_its_own_process_gives_rewards_that_are_missing(
    fit: Fit, url: str, worker_beside: WorkerBeside, stored: Stored, tmp_path: Path
) -> None:
    class CutOff(SQLiteStore):
        async def add_rewards(self, *arguments: Any, **more: Any) -> bool:
            raise StoreError("cut off")

    store = CutOff(url.removeprefix("sqlite:///"))
    async with worker_beside(agent):
        with pytest.raises(StoreError, match="cut off"):
            await fit(once, Counting(), store=store)
    await store.close()
    ended = [rollout.id for rollout in await stored() if rollout.finished]
    assert ended
    reward = Counting()
    options: dict[str, Any] = {"held_out": TASKS[:1], "store": url, "directory": tmp_path / "runs", "name": "run"}
    trainer = Trainer(agent, TASKS, reward, Doing(once), **options)
    config = trainer._config
    config["agent"] = "elsewhere:agent"  # as a file would say it
    rollouts = await stored((await trainer.fit_async(resume=True)).run_id)
    assert [rollout.outcome for rollout in rollouts] == [0.0, 1.0, 2.0, 3.0]
    assert set(reward.given.values()) == {1}


async def test_what_the_agent_gave_itself_stays_beside_the_rewards_of_the_same_name(
    fit: Fit, worker_beside: WorkerBeside, stored: Stored
) -> None:
    def reward(rollout: Rollout, task: Task) -> float:
        return 10.0

    async def generous(number: int) -> int:
        agl.reward(1.0)
        agl.reward(2.0)
        return number

    async with worker_beside(generous):
        rollouts = await stored(await fit(once, reward))
    for rollout in rollouts:
        assert [(one.name, one.value) for one in rollout.rewards] == [
            ("reward", 1.0),
            ("reward", 2.0),
            ("reward", 10.0),
        ]


async def test_failures_of_the_agent_are_scored_and_those_of_rewards_are_kept(
    fit: Fit, worker_beside: WorkerBeside, stored: Stored
) -> None:
    async def moody(number: int) -> int:
        if number == 0:
            raise ValueError("no zero")
        if number == 1:
            agl.reward(float("nan"))
        return number

    def half(rollout: Rollout, task: Task) -> float:
        if task.input == 2:
            raise KeyError("two")
        return 0.5

    async with worker_beside(moody):
        failed, in_vain, unscored, good = await stored(await fit(once, half))
    assert (failed.status, failed.outcome, failed.failure.type) == ("failed", 0.5, "agent_error")  # type: ignore[union-attr]
    assert failed.failure.where is not None  # type: ignore[union-attr]
    for rollout in (in_vain, unscored):
        assert (rollout.status, rollout.outcome, rollout.failure.type) == ("succeeded", None, "reward_error")  # type: ignore[union-attr]
    assert (good.outcome, good.failure) == (0.5, None)


async def test_rewards_of_a_group_are_given_too(fit: Fit, worker_beside: WorkerBeside, stored: Stored) -> None:
    def own(rollout: Rollout, task: Task) -> float:
        return 1.0

    def rank(rollouts: list[Rollout], task: Task) -> list[float]:
        return [float(rollout.sample) for rollout in rollouts]

    async def body(run: Any) -> None:
        async for group in run.collect(run.tasks[:2], step=1, group_size=3):
            assert [one.rollout.outcome for one in group.rollouts] == [1.0, 2.0, 3.0]

    async with worker_beside(agent):
        await fit(body, [own, rank])


async def test_plugins_hear_of_each_rollout_once(
    fit: Fit, worker_beside: WorkerBeside, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: Counter[str] = Counter()

    def notify(self: Plugins, hook: str, **arguments: Any) -> None:
        if hook == "rollout_finished":
            assert arguments["rollout"].outcome is not None
            heard[arguments["rollout"].id] += 1

    monkeypatch.setattr(Plugins, "notify", notify)

    async def twice(run: Any) -> None:
        for _ in range(2):
            async for _ in run.collect(run.tasks, step=1, key="the same"):
                pass

    async with worker_beside(agent):
        await fit(twice, Counting())
    assert list(heard.values()) == [1] * 4


async def test_what_was_left_early_is_kept_from_workers_until_it_is_asked_for_again(
    fit: Fit, worker_beside: WorkerBeside, stored: Stored
) -> None:
    began: list[int] = []

    async def noting(number: int) -> int:
        began.append(number)
        return number

    async def body(run: Any) -> None:
        async with worker_beside(noting, concurrency=1) as worker:
            async with aclosing(run.collect(run.tasks, step=1, key="left")) as groups:
                async for _ in groups:
                    break
            before = len(began)
            async for _ in run.collect(run.tasks, step=2, key="next"):
                pass
            left = [rollout for rollout in await stored(run.id, collection="left") if not rollout.finished]
            assert len(left) == 4 - before
            found = [len(group.rollouts) async for group in run.collect(run.tasks, step=1, key="left")]
            assert found == [1] * 4
            assert worker.finished <= 8

    await fit(body, Counting())
    assert Counter(began) == Counter([0, 1, 2, 3] * 2)


async def test_what_the_run_publishes_and_repeats_reaches_the_worker(
    fit: Fit, worker_beside: WorkerBeside, stored: Stored
) -> None:
    async def asks(number: int) -> list[str]:
        answers = []
        async with openai.AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
            for turn in range(2):
                asked: Any = [{"role": "user", "content": f"{turn} of {number}"}]
                answer = await client.chat.completions.create(model="any", messages=asked)
                answers.append(str(answer.choices[0].message.content))
        return answers

    replayed: list[bool] = []

    async def body(run: Any) -> None:
        await run.publish(Policy(name="policy", model="stub", base_url=stub.base_url))
        groups = [group async for group in run.collect(run.tasks[:1], step=1)]
        (member,) = groups[0].rollouts
        ((again,),) = await run.branch([BranchPoint(member.rollout, 1)], count=1, step=1)
        spans = [span for span in again.spans if span.kind == "llm"]
        replayed.extend(semconv.REPLAYED in span.attributes for span in spans)
        (first,) = [span for span in member.spans if span.kind == "llm"][:1]
        assert spans[0].generation.response == first.generation.response

    def length(rollout: Rollout, task: Task) -> float:
        return float(len(rollout.output))

    with StubServer() as stub:
        stub.reply(lambda request: Answer([Choice("yes", token_ids=[1], logprobs=[-0.5])]))
        async with worker_beside(asks):
            await fit(body, length)
        assert ["replay" in request.json for request in stub.requests] == [False, False, True, False]
    assert replayed == [True, False]


def test_a_check_alone_runs_the_agent_in_its_own_process(tmp_path: Path) -> None:
    seen: list[int] = []

    def here(number: int) -> int:
        seen.append(number)
        return number

    runner = RunnerConfig(name="clients", config={"wait_seconds": 1.0})
    trainer = Trainer(here, TASKS, Counting(), Doing(checks), held_out=TASKS[:1], runner=runner, directory=tmp_path)
    assert trainer.check().ok
    assert len(seen) == 1


async def checks(run: Any) -> None:
    await run.check()


async def test_the_first_check_of_a_run_is_made_by_a_worker(
    fit: Fit, worker_beside: WorkerBeside, stored: Stored
) -> None:
    async with worker_beside(agent):
        run_id = await fit(checks, Counting())
    (rollout,) = await stored(run_id)
    assert (rollout.purpose, rollout.status, rollout.outcome) == ("check", "succeeded", float(rollout.output))


def test_an_option_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"runner\.config\.wait_seconds: expected float > 0\.0"):
        Trainer(agent, TASKS, runner=RunnerConfig(name="clients", config={"wait_seconds": 0}))
