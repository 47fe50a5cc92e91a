"""The runner ``processes``: each rollout in a process of its own, which alone ends when its agent crashes or hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from doing import Doing
from processes import runs
from stub_answers import Answer, Choice
from stub_server import StubServer

import agentlightning as agl
from agentlightning import Trainer
from agentlightning.config import RunnerConfig
from agentlightning.errors import AdapterError, ConfigError
from agentlightning.records import Policy, Rollout, Span, Task
from agentlightning.store import open_store

Stored = Callable[..., Awaitable[Sequence[Rollout]]]


def does(what: str) -> Any:
    """What its input says; then its process's id."""
    agl.annotate("begun", what=what)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "exit":
        os._exit(3)
    if what == "raise":
        raise ValueError("no")
    if what == "hang":
        while True:  # holds the interpreter's lock now and then, and never returns
            time.sleep(0.01)
    if what == "reward":
        agl.reward(0.25)
    return os.getpid()


async def blocks(what: str) -> int:
    """Starts another process, says whose, and holds its event loop."""
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    agl.annotate("child", pid=child.pid)
    time.sleep(3600)
    return 0


def asks(what: str) -> str | None:
    asked: Any = [{"role": "user", "content": what}]
    with openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="k", max_retries=0) as client:
        return client.chat.completions.create(model="any", messages=asked).choices[0].message.content


def always(rollout: Rollout, task: Task) -> float:
    return 1.0


@pytest.fixture
def fit(tmp_path: Path, url: str) -> Callable[..., Awaitable[str]]:
    async def run(agent: Any, inputs: Sequence[str], body: Any = None, **options: Any) -> str:
        async def collect(run: Any) -> None:
            async for _ in run.collect(run.tasks, step=1):
                pass

        name = f"{__name__}:{agent.__name__}"
        tasks = [{"id": f"t{number}", "input": what} for number, what in enumerate(inputs)]
        trainer = Trainer(
            *(name, tasks, always, Doing(body or collect)),
            held_out=tasks[:1],
            runner=RunnerConfig(name="processes", **{"concurrency": 2, "timeout": 60.0, **options}),
            store=url,
            directory=tmp_path / "runs",
        )
        return (await trainer.fit_async()).run_id

    return run


async def spans_of(url: str, rollout: Rollout) -> list[Span]:
    store = open_store(url)
    try:
        return await store.spans(rollout.id)
    finally:
        await store.close()


async def test_each_rollout_runs_in_a_process_that_runs_nothing_else_meanwhile(
    fit: Callable[..., Any], stored: Stored
) -> None:
    rollouts = await stored(await fit(does, ["any"] * 6))
    pids = {rollout.output for rollout in rollouts}
    assert os.getpid() not in pids
    assert 1 <= len(pids) <= 2
    assert [rollout.outcome for rollout in rollouts] == [1.0] * 6
    assert not any(map(psutil.pid_exists, pids)), "they end with the run"


async def test_a_crash_is_the_failure_of_its_rollout_alone_and_what_it_had_recorded_stays(
    fit: Callable[..., Any], stored: Stored, url: str
) -> None:
    inputs = ["crash", "any", "exit", "any", "raise", "reward"]
    crashed, fine, ended, other, raised, rewarded = await stored(await fit(does, inputs))
    for rollout, how in ((crashed, "signal SIGSEGV"), (ended, "exit code 3")):
        assert rollout.failure is not None
        assert (rollout.status, rollout.failure.type, rollout.failure.fault) == ("failed", "agent_error", "agent")
        assert rollout.failure.message == f"the agent's process ended, with {how}"
        assert [span.name for span in await spans_of(url, rollout)] == ["begun"]
        assert rollout.outcome == 1.0
    assert raised.failure is not None
    assert raised.failure.message == "no"
    assert {fine.status, other.status, rewarded.status} == {"succeeded"}
    assert [(reward.name, reward.value) for reward in rewarded.rewards] == [("reward", 0.25), ("always", 1.0)]


async def test_an_agent_that_hangs_is_ended_at_its_limit(fit: Callable[..., Any], stored: Stored) -> None:
    hung, fine = await stored(await fit(does, ["hang", "any"], timeout=3.0))
    assert hung.failure is not None
    assert (hung.failure.type, hung.failure.message) == ("timeout", "the agent took longer than runner.timeout = 3 s")
    assert fine.status == "succeeded"


async def test_what_holds_its_process_is_killed_with_all_that_it_has_started(
    fit: Callable[..., Any], stored: Stored, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentlightning_client.agent_processes.GRACE_SECONDS", 0.5)
    (rollout,) = await stored(await fit(blocks, ["any"], timeout=3.0))
    assert rollout.failure is not None
    assert rollout.failure.message == "the agent took longer than runner.timeout = 3 s, and did not stop"
    child = next(span for span in await spans_of(url, rollout) if span.name == "child")
    assert not runs(child.attributes["pid"])


async def test_what_is_left_early_is_ended_and_queued_again(fit: Callable[..., Any], stored: Stored) -> None:
    async def body(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, step=1)) as groups:
            async for _ in groups:
                break

    ended, left = await stored(await fit(does, ["any", "hang"], body))
    assert (ended.status, left.status) == ("succeeded", "queued")


async def test_calls_reach_the_policy_of_the_run_and_their_tokens_come_back(
    fit: Callable[..., Any], stored: Stored, url: str
) -> None:
    async def body(run: Any) -> None:
        await run.publish(Policy(name="policy", model="stub", base_url=stub.base_url))
        async for _ in run.collect(run.tasks, step=1):
            pass

    with StubServer() as stub:
        stub.reply(lambda request: Answer([Choice("yes", token_ids=[7], logprobs=[-0.5])]))
        (rollout,) = await stored(await fit(asks, ["well?"], body))
    assert rollout.output == "yes"
    (call,) = [span.generation for span in await spans_of(url, rollout) if span.generation is not None]
    assert (call.policy, call.provenance) == ("policy", "exact")
    assert call.response_ids is not None
    assert call.response_ids.tolist() == [7]


def refuse(agent: Any, folder: Path) -> Trainer:
    tasks = [{"id": "t", "input": "any"}]
    runner = RunnerConfig(name="processes")
    return Trainer(agent, tasks, always, Doing(refuse), held_out=tasks, runner=runner, directory=folder)  # type: ignore[arg-type]


def test_an_agent_that_cannot_be_loaded_ends_the_run_before_its_first_rollout(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="has no 'nobody'"):
        refuse(f"{__name__}:nobody", tmp_path).check()


def test_an_agent_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give it as 'module:attribute', not as an object"):
        refuse(does, tmp_path).check()
