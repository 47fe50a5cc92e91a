"""Trainer, run and runner together, on a real store: what is run, retried, left out, resumed."""

import asyncio
import threading

import msgspec
import pytest

import agentlightning as agl
import agentlightning.recording
from agentlightning import Algorithm, Trainer
from agentlightning.cli.live_progress import make_progress
from agentlightning.config import RunnerConfig
from agentlightning.errors import AdapterError, ConfigError, DataError, StoreBusyError
from agentlightning.records import Failure, ModelChoice, Policy
from agentlightning.store import open_store

TASKS = [{"id": f"t{number}", "input": number, "expected": number * 2} for number in range(4)]


class Steps(msgspec.Struct, forbid_unknown_fields=True):
    steps: int = 1
    group_size: int = 2


class Collecting(Algorithm):
    """Collects every task at every step, keeps the groups, and checkpoints each step."""

    Config = Steps

    def __init__(self, config: Steps | None = None) -> None:
        super().__init__(config or Steps())
        self.groups = []
        self.crash_after: int | None = None

    async def run(self, run) -> None:
        first = run.restored.step + 1 if run.restored else 1
        await run.evaluate(step=0)
        for step in range(first, self.config.steps + 1):
            async for group in run.collect(run.tasks, group_size=self.config.group_size, step=step):
                self.groups.append(group)
            if step == self.crash_after:
                raise RuntimeError("crashed")
            await run.checkpoint(step, {"step": step}, lambda folder: (folder / "x").write_text("x"))
        await run.evaluate(step=self.config.steps)


def double(number: int) -> int:
    return number * 2


def right(rollout, task) -> float:
    return float(rollout.output == task.expected)


@pytest.fixture
def train(tmp_path):
    def make(agent=double, reward=right, algorithm=None, **options):
        options = {
            "held_out": TASKS[:2],
            "store": f"sqlite:///{tmp_path / 'store.db'}",
            "directory": tmp_path / "runs",
            "progress": make_progress(quiet=True),
            "name": "test",
        } | options
        return Trainer(agent, options.pop("tasks", TASKS), reward, algorithm or Collecting(), **options)

    return make


def test_every_task_is_run_group_size_times_and_compared(train):
    algorithm = Collecting()
    result = train(algorithm=algorithm).fit()

    assert result.status == "succeeded"
    assert sorted((group.task.id, len(group.rollouts)) for group in algorithm.groups) == [
        (f"t{n}", 2) for n in range(4)
    ]
    assert {rollout.outcome for group in algorithm.groups for rollout in group.all_rollouts} == {1.0}


def test_an_asynchronous_agent_runs_on_the_loop(train):
    threads = set()

    async def agent(number):
        threads.add(threading.get_ident())
        await asyncio.sleep(0)
        return number * 2

    assert train(agent).fit().comparisons[0].after == 1.0
    assert len(threads) == 1


def test_the_agents_own_failure_is_a_result_and_is_scored(train):
    def agent(number):
        raise ValueError("I give up")

    algorithm = Collecting()
    train(agent, lambda rollout, task: 0.25, algorithm).fit()

    (rollout, *_) = algorithm.groups[0].all_rollouts
    assert (rollout.status, rollout.outcome, rollout.failure.type) == ("failed", 0.25, "agent_error")
    assert "I give up" in rollout.failure.message


def test_a_reward_that_cannot_tell_leaves_the_rollout_out_and_is_never_zero(train):
    algorithm = Collecting()
    train(reward=lambda rollout, task: None, algorithm=algorithm).fit()

    assert [(len(group.rollouts), len(group.excluded)) for group in algorithm.groups] == [(0, 2)] * 4
    assert algorithm.groups[0].excluded[0].outcome is None


def test_an_infrastructure_failure_is_tried_again(train, monkeypatch):
    tries = []

    def agent(number):
        tries.append(number)
        if tries.count(number) == 1:
            recorder = agl.recording.current()
            error = ConnectionError("down")
            span = recorder.start("llm", "chat")
            failure = Failure(
                type="engine_unavailable", message="down", fault="infrastructure", exception="builtins.ConnectionError"
            )
            recorder.end(span, failure)
            raise error
        return number * 2

    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    algorithm = Collecting(Steps(group_size=1))
    train(agent, algorithm=algorithm, held_out=[{"id": "h", "input": 9, "expected": 18}]).fit()

    for group in algorithm.groups:
        (rollout,) = group.all_rollouts
        assert (rollout.status, rollout.attempt) == ("succeeded", 2)
        assert [failure.type for failure in rollout.failed_attempts] == ["engine_unavailable"]


def test_what_infrastructure_breaks_for_good_is_left_out_and_counted(train, monkeypatch):
    def agent(number):
        recorder = agl.recording.current()
        recorder.end(recorder.start("llm", "chat"), Failure(type="timeout", message="x", fault="infrastructure"))
        return "made up without the model"

    monkeypatch.setattr("agentlightning.attempts.BACKOFF_SECONDS", 0.0)
    algorithm = Collecting()
    train(agent, algorithm=algorithm, runner=RunnerConfig(retries=1)).fit()

    assert [(len(group.rollouts), len(group.excluded)) for group in algorithm.groups] == [(0, 2)] * 4
    assert {rollout.attempt for rollout in algorithm.groups[0].excluded} == {2}


def test_an_agent_that_never_returns_times_out_and_holds_nothing_up(train):
    forever = threading.Event()

    def agent(number):
        if number == 1:
            forever.wait()
        return number * 2

    algorithm = Collecting(Steps(group_size=1))
    train(agent, algorithm=algorithm, held_out=TASKS[2:], runner=RunnerConfig(timeout=0.3)).fit()
    forever.set()

    by_task = {group.task.id: group.rollouts[0].rollout for group in algorithm.groups}
    assert by_task["t1"].failure.type == "timeout"
    assert by_task["t2"].status == "succeeded"


def test_what_the_agent_says_of_the_whole_counts_with_what_the_plugins_say(train):
    def agent(number):
        with agl.span("work", kind="tool"):
            agl.reward(0.5, name="own")
        return number * 2

    algorithm = Collecting()
    train(agent, algorithm=algorithm).fit()

    rollout = algorithm.groups[0].rollouts[0].rollout
    assert [(part.name, part.value, part.step, part.span_id) for part in rollout.rewards] == [
        ("own", 0.5, False, None),
        ("right", 1.0, False, None),
    ]
    assert (rollout.outcome, rollout.total_reward) == (1.5, 1.5)


def test_step_rewards_are_learned_from_and_reported_nowhere(train):
    def agent(number):
        with agl.span("work", kind="tool"):
            agl.reward(0.5, name="hint", step=True)
        return number * 2

    algorithm = Collecting()
    train(agent, algorithm=algorithm).fit()

    rollout = algorithm.groups[0].rollouts[0].rollout
    assert [(part.name, part.value, part.step, part.span_id is not None) for part in rollout.rewards] == [
        ("hint", 0.5, True, True),
        ("right", 1.0, False, False),
    ]
    assert (rollout.outcome, rollout.total_reward) == (1.0, 1.5)


def test_an_agent_that_gives_step_rewards_alone_trains_and_has_no_outcome(train):
    def agent(number):
        agl.reward(0.5, name="hint", step=True)
        return number * 2

    algorithm = Collecting()
    result = train(agent, reward=[], algorithm=algorithm).fit()

    assert {rollout.total_reward for group in algorithm.groups for rollout in group.all_rollouts} == {0.5}
    assert [group.excluded for group in algorithm.groups] == [[]] * 4
    assert {reward for evaluation in result.evaluations for reward in evaluation.rewards} == {None}


def test_a_resumed_run_goes_on_and_does_no_finished_rollout_again(train):
    calls = []

    def agent(number):
        calls.append(number)
        return number * 2

    crashing = Collecting(Steps(steps=3))
    crashing.crash_after = 2
    with pytest.raises(RuntimeError, match="crashed"):
        train(agent, algorithm=crashing).fit()
    before = len(calls)
    resumed = Collecting(Steps(steps=3))
    result = train(agent, algorithm=resumed).fit(resume=True)

    assert result.status == "succeeded"
    assert len(resumed.groups) == 2 * 4, "step 2 is replayed from the store, step 3 is run"
    assert len(calls) - before == 4 * 2 + 2, "only step 3 and the last evaluation are run"


def test_resume_without_a_run_to_resume_says_so(train):
    with pytest.raises(ConfigError, match="agl runs"):
        train().fit(resume=True)


def test_a_run_of_a_live_process_is_not_taken_over(train, tmp_path):
    class Nested(Collecting):
        async def run(self, run) -> None:
            store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
            try:
                await store.open_run(await store.run(run.id))
            finally:
                await store.close()

    with pytest.raises(StoreBusyError):
        train(algorithm=Nested()).fit()


def test_published_resources_reach_the_rollouts_for_the_agents_that_are_trained(train):
    seen = []

    def agent(number):
        recorder = agl.recording.current()
        seen.append((recorder.resource(Policy, "writer"), recorder.resource(Policy, "critic")))
        return number * 2

    class Publishing(Collecting):
        async def run(self, run) -> None:
            await run.publish(Policy(name="p", version=3, model="m", base_url="http://127.0.0.1:1/v1"))
            await run.publish(ModelChoice(name="c", model="m"))
            async for group in run.collect(run.tasks, group_size=1, step=1):
                self.groups.append(group)

    algorithm = Publishing()
    train(agent, algorithm=algorithm, train=["wri*"]).fit()

    assert {(policy.version, other) for policy, other in seen} == {(3, None)}
    assert algorithm.groups[0].rollouts[0].rollout.resources.keys() == {"p", "c"}


def test_fit_works_inside_a_running_event_loop(train):
    async def notebook():
        return train().fit()

    assert asyncio.run(notebook()).status == "succeeded"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"agent": "no_such_module:agent"}, ConfigError),
        ({"agent": 42}, AdapterError),
        ({"tasks": []}, DataError),
        ({"algorithm": {"steps": 3}}, ConfigError),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(train, change, error):
    with pytest.raises(error):
        train(**change)


def test_batches_walk_through_all_tasks_each_epoch_in_an_order_of_its_own(train):
    seen = []

    class Batching(Collecting):
        async def run(self, run) -> None:
            batch = run.batches(2)
            seen.extend([task.id for task in batch(step)] for step in range(1, 7))

    train(algorithm=Batching()).fit()
    epochs = [sorted(seen[start] + seen[start + 1]) for start in (0, 2, 4)]
    assert epochs == [["t0", "t1", "t2", "t3"]] * 3
    assert len({tuple(seen[start] + seen[start + 1]) for start in (0, 2, 4)}) > 1


def test_as_many_synchronous_agents_run_at_once_as_the_config_allows(train):
    """Every one of them waits for all the others: with fewer threads than rollouts none would go on."""
    barrier = threading.Barrier(32)

    def agent(number):
        barrier.wait(timeout=30)
        return number * 2

    tasks = [{"id": f"t{number}", "input": number, "expected": number * 2} for number in range(32)]
    algorithm = Collecting(Steps(group_size=1))
    train(agent, algorithm=algorithm, tasks=tasks, held_out=tasks, runner=RunnerConfig(concurrency=32)).fit()

    assert {group.rollouts[0].rollout.status for group in algorithm.groups} == {"succeeded"}


def test_a_plugin_that_fails_in_a_life_cycle_hook_does_not_harm_the_run(train, caplog):
    class Rude:
        @agl.hookimpl
        def rollout_finished(self, rollout):
            raise RuntimeError("rude")

    trainer = train()
    manager = trainer._plugins._manager
    rude = Rude()
    manager.register(rude)
    try:
        result = trainer.fit()
    finally:
        manager.unregister(rude)

    assert result.status == "succeeded"
    assert "rude" in caplog.text
