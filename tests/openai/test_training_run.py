"""A whole run against two endpoints: what of the agent's reaches the policy, what is refused, and what the run says."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from instrumentations import INSTRUMENTATIONS
from rich.console import Console
from ways_to_call import WAYS

from agentlightning import Algorithm, Trainer
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import NoConfig, RunnerConfig
from agentlightning.plugins import plugins
from agentlightning.records import Policy, Rollout
from agentlightning.training_rows import Group

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(
        "openai" not in {adapter.name for adapter in plugins().adapters()}, reason="the model layer is not installed"
    ),
]
SECONDS = 20


class Train(Algorithm):
    """Two tasks in groups of four, with a policy that the stub serves."""

    def __init__(self, base_url: str) -> None:
        super().__init__(NoConfig())
        self.policy = Policy(name="policy", model="tiny", base_url=base_url)
        self.groups: list[Group] = []

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for group in self.groups for rollout in group.all_rollouts]

    async def run(self, run: Any) -> None:
        await run.publish(self.policy)
        self.groups = [group async for group in run.collect(run.tasks, group_size=4, step=1)]
        run.log({}, step=1)
        run.progress(step=1, steps=1)


@pytest.fixture
def train(stub, policy_stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs an agent, by name or a function of its endpoint and the input; gives the algorithm and what was said."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    layer = next(adapter for adapter in plugins().adapters() if adapter.name == "openai")
    layer.uninstall()

    def run(agent: Callable[[str, Any], Any] | str, reward: Any = lambda rollout, task: 1.0) -> tuple[Train, str]:
        algorithm = Train(policy_stub.base_url)
        console = Console(record=True, width=400, force_terminal=False, file=(tmp_path / "said").open("w"))
        Trainer(
            agent if isinstance(agent, str) else functools.partial(agent, stub.base_url),
            [{"id": "a", "input": "a"}, {"id": "b", "input": "b"}],
            reward,
            algorithm,
            held_out=[{"id": "c", "input": "c"}],
            store=f"sqlite:///{tmp_path / 'store.db'}",
            directory=tmp_path / "runs",
            progress=make_progress(console=console),
            runner=RunnerConfig(timeout=30.0, retries=0, concurrency=1),
        ).fit()
        return algorithm, console.export_text()

    yield run
    layer.uninstall()


def ask(base_url: str, input: Any) -> str:
    return str(WAYS[0](base_url).choices[0].message.content)


def test_a_call_in_an_executor_reaches_the_policy(train, stub, policy_stub) -> None:
    def agent(base_url: str, input: Any) -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(ask, base_url, input).result(SECONDS) + ask(base_url, input)

    algorithm, _ = train(agent)
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 16)
    assert [rollout.status for rollout in algorithm.rollouts] == ["succeeded"] * 8


def work(jobs: queue.Queue[tuple[str, Any, Future[str]]]) -> None:
    while True:
        base_url, input, future = jobs.get()
        try:
            future.set_result(ask(base_url, input))
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            future.set_exception(error)


def test_a_call_in_a_worker_that_was_there_before_is_an_error_of_its_rollout(train, stub, policy_stub) -> None:
    jobs: queue.Queue[tuple[str, Any, Future[str]]] = queue.Queue()
    threading.Thread(target=work, args=(jobs,), daemon=True).start()

    def agent(base_url: str, input: Any) -> str:
        jobs.put((base_url, input, future := Future()))
        return future.result(SECONDS)

    algorithm, _ = train(agent)
    assert stub.requests == policy_stub.requests == []
    for rollout in algorithm.rollouts:
        assert (rollout.failure.type, rollout.failure.fault) == ("redirect_failed", "infrastructure")
        assert "ways_to_call.py:" in rollout.failure.message


MODULE = """
import openai
from {module} import OpenAIInstrumentor

OpenAIInstrumentor().instrument()
client = openai.AsyncOpenAI(base_url={base_url!r}, api_key="k", max_retries=0)


async def agent(question):
    answer = await client.chat.completions.create(model="gpt", messages=[{{"role": "user", "content": question}}])
    return answer.choices[0].message.content
"""


@pytest.mark.parametrize("module", [module for module, _ in INSTRUMENTATIONS.values()], ids=list(INSTRUMENTATIONS))
def test_an_agent_whose_module_traces_the_client_at_import_is_trained(
    train, stub, policy_stub, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, untouched: None
) -> None:
    instrumentor = pytest.importorskip(module, exc_type=ImportError).OpenAIInstrumentor()
    name = f"traced_by_{module.replace('.', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(module=module, base_url=stub.base_url), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        algorithm, _ = train(f"{name}:agent")
    finally:
        instrumentor.uninstrument()
    assert (len(stub.requests), len(policy_stub.requests)) == (0, 8)
    assert [len(one.rows) for group in algorithm.groups for one in group.rollouts] == [1] * 8


def test_a_judge_among_the_rewards_asks_its_own_model(train, stub, policy_stub) -> None:
    def judge(rollout: Rollout, task: Any) -> float:
        return float(bool(ask(stub.base_url, task.input)))

    def judge_in_a_pool(rollout: Rollout, task: Any) -> float:
        with ThreadPoolExecutor(1) as pool:
            return float(bool(pool.submit(ask, stub.base_url, task.input).result(SECONDS)))

    algorithm, _ = train(ask, [judge, judge_in_a_pool])
    assert (len(stub.requests), len(policy_stub.requests)) == (16, 8)
    assert [rollout.outcome for rollout in algorithm.rollouts] == [2.0] * 8


def test_rollouts_that_a_cache_answers_are_said_by_number_and_name(train, stub, policy_stub) -> None:
    known: dict[Any, str] = {}

    def agent(base_url: str, input: Any) -> str:
        if input not in known:
            known[input] = ask(base_url, input)
        return known[input]

    algorithm, said = train(agent)
    assert len(policy_stub.requests) == 2
    assert [len(group.without_calls) for group in algorithm.groups] == [3, 3]
    assert "task a: 3 of 4 rollouts made no call of the policy while the others did" in said
    assert "6/8 rollouts without a call" in said


def test_rollouts_that_each_ask_are_not_spoken_of(train) -> None:
    _, said = train(ask)
    assert "without a call" not in said
    assert "made no call" not in said


def test_an_agent_that_swallows_what_was_not_sent_has_no_result(train, stub, policy_stub) -> None:
    """A client that somebody wrapped before our hooks, with a wrapper that keeps the old method."""
    client = openai.OpenAI(base_url=stub.base_url, api_key="k")
    client.request = functools.partial(client.request)  # type: ignore[method-assign]

    def agent(base_url: str, input: Any) -> str:
        with suppress(Exception):
            client.chat.completions.create(model="gpt", messages=[])
        return "sorry"

    algorithm, _ = train(agent)
    assert stub.requests == policy_stub.requests == []
    assert {rollout.failure.type for rollout in algorithm.rollouts} == {"redirect_failed"}
