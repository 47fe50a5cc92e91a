"""What every store must do. A new store is run through it: subclass `StoreContract`, and say how to
open one (tests/core/test_store_contract.py).

Nothing here knows how a store keeps what it keeps, and nothing waits for a clock: a lease lasts for ever, or has ended
as it is given.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from store_records import FOR_EVER, a_live_run, a_promotion, a_recorded, a_rollout, a_run, a_span, a_step

from agentlightning.errors import StoreError, StoreRefusedError
from agentlightning.records import Failure, ModelChoice, ModelRouter, Policy, Prompt, Reward, Rollout, Task
from agentlightning.store import Checkpoint, Metric, Store


async def finished(store: Store, id: str, status: Any = "succeeded", **fields: Any) -> Rollout:
    """The rollout, queued, leased and finished."""
    await store.enqueue([a_rollout(id)])
    [leased] = await store.lease("worker", ids=[id])
    leased.status = status
    for name, value in fields.items():
        setattr(leased, name, value)
    assert await store.finish(leased)
    return leased


async def _with_failures(store: Store) -> None:
    """Three rollouts: one survives two errors of its tool, one fails after a third, one fails and says nothing."""
    why = Failure(type="tool_error", message="no\n  answer", where="agent.py:3")
    store.add_spans(
        [
            a_step("1", 0, "tool", "search", 110.0, "tool_error"),
            a_step("1", 1, "tool", "search", 120.0, None),
            a_step("1", 2, "tool", "search", 130.0, "tool_error", failure=why),
            a_step("1", 3, "llm", "gpt", 140.0, None),
            a_step("1", 4, "agent", "solver", 150.0, None),
            a_step("2", 0, "tool", "search", 125.0, "tool_error"),
            a_step("2", 1, "llm", "gpt", 220.0, "rate_limited", fault="infrastructure"),
            a_step("2", 2, "agent", "solver", 230.0, None),
            a_step("2", 3, "reward", "right", 231.0, None),
        ]
    )
    await finished(store, "1", ended_at=150.0)
    await finished(store, "2", "failed", ended_at=240.0, failure=Failure(type="agent_error", message="gave up"))
    await finished(store, "3", "failed", ended_at=250.0)


class StoreContract:
    """Each test has a store of its own, new and empty."""

    @pytest.fixture
    def open_again(self) -> Callable[[], Store]:
        """Opens the test's store, the same however often. A subclass gives it."""
        raise NotImplementedError

    @pytest.fixture
    async def store(self, open_again: Callable[[], Store]) -> AsyncIterator[Store]:
        opened = open_again()
        yield opened
        await opened.close()

    # Runs

    async def test_a_run_is_kept_as_it_was_opened(self, store: Store) -> None:
        await store.open_run(a_run("b", config={"lr": 0.1}, seed=3, created_at=12.0))
        await store.open_run(a_run("a"))
        assert [run.id for run in await store.runs()] == ["b", "a"]
        assert await store.run("b") == a_run("b", config={"lr": 0.1}, seed=3, created_at=12.0)
        assert await store.run("c") is None

    async def test_a_run_that_is_opened_again_is_as_it_was_but_running(self, store: Store) -> None:
        await store.open_run(a_run(seed=3))
        await store.close_run("run", "failed", "out of memory")
        closed = await store.run("run")
        assert closed is not None
        assert (closed.status, closed.message) == ("failed", "out of memory")
        assert closed.ended_at is not None
        assert await store.open_run(a_run(seed=4)) == a_run(seed=3)
        assert await store.run("run") == a_run(seed=3)

    async def test_opening_a_run_twice_in_one_store_keeps_its_leases(self, store: Store) -> None:
        await store.open_run(a_run())
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        await store.open_run(a_run())
        leased.status = "succeeded"
        assert await store.finish(leased)

    async def test_what_a_run_has_published_and_what_came_of_it_are_kept_when_it_ends(self, store: Store) -> None:
        run = await store.open_run(a_run())
        prompt = Prompt(name="prompt", template="Be brief.")
        await store.put_resource("run", prompt)
        await store.put_resource("run", Prompt(name="prompt", template="Never published."))
        run.results["model"], run.resources["prompt"], run.status = "folder", prompt.digest, "failed"
        await store.update_run(run)
        assert [one.status for one in await store.runs()] == ["running"], "its status is not what is updated"
        await store.close_run("run", "succeeded")
        kept = await store.run("run")
        assert kept is not None
        assert (kept.results, kept.status) == ({"model": "folder"}, "succeeded")
        assert await store.published(kept) == [prompt]

    async def test_a_run_that_is_not_there_cannot_be_updated(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no run nowhere"):
            await store.update_run(a_run("nowhere"))

    async def test_closing_a_run_that_is_not_there_is_an_error(self, store: Store) -> None:
        with pytest.raises(StoreError, match="no run nowhere"):
            await store.close_run("nowhere", "failed")

    # Tasks

    async def test_tasks_are_kept_by_run_and_id(self, store: Store) -> None:
        tasks = [Task(id=id, input={"question": id}, expected=1) for id in ("b", "a")]
        await store.add_tasks("run", tasks)
        await store.add_tasks("run", [Task(id="a", input="another")])
        await store.add_tasks("other", [Task(id="c", input=0)])
        assert list((await store.tasks("run")).items()) == [("b", tasks[0]), ("a", Task(id="a", input="another"))]
        assert list(await store.tasks("run", ids=["a", "c"])) == ["a"]

    # Rollouts and leases

    async def test_enqueue_returns_rollouts_as_they_stand_in_the_order_given(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2")])
        [leased] = await store.lease("worker", ids=["2"])
        leased.status, leased.output = "succeeded", {"answer": 4}
        leased.rewards = [Reward(name="exact", value=1.0, at=5.0)]
        await store.finish(leased)
        known = await store.enqueue([a_rollout("3"), a_rollout("2"), a_rollout("1")])
        assert [(rollout.id, rollout.status, rollout.attempt) for rollout in known] == [
            ("3", "queued", 0),
            ("2", "succeeded", 1),
            ("1", "queued", 0),
        ]
        assert known[1] == leased
        assert [rollout.id for rollout in await store.rollouts("run")] == ["1", "2", "3"]

    async def test_rollouts_are_found_by_purpose_collection_and_id(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2", collection="b"), a_rollout("4", run_id="other")])
        assert [rollout.id for rollout in await store.rollouts("run", purpose="train", collection="b")] == ["2"]
        assert await store.rollouts("run", purpose="evaluate") == []
        assert await store.rollout("5") is None

    async def test_lease_hands_out_queued_rollouts_in_order_up_to_the_limit(self, store: Store) -> None:
        await store.enqueue([a_rollout(id) for id in "dcba"])
        first = await store.lease("one", limit=3)
        second = await store.lease("two", limit=3)
        assert [[rollout.id for rollout in leased] for leased in (first, second)] == [["d", "c", "b"], ["a"]]
        assert {(rollout.status, rollout.attempt) for rollout in first + second} == {("running", 1)}

    async def test_lease_by_id_hands_out_only_those_that_are_free(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2")])
        await store.lease("one", ids=["1"])
        assert [rollout.id for rollout in await store.lease("two", ids=["2", "1", "2", "3"], limit=9)] == ["2"]

    async def test_lease_by_run_hands_out_only_those_of_that_run(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2", run_id="other"), a_rollout("3")])
        assert [rollout.id for rollout in await store.lease("one", run_id="other", limit=9)] == ["2"]
        assert [rollout.id for rollout in await store.lease("two", run_id="run", ids=["3", "2"], limit=9)] == ["3"]
        assert await store.lease("three", run_id="nowhere", limit=9) == []

    async def test_a_lease_that_ended_is_handed_out_again_and_the_old_attempt_is_fenced_off(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [slow] = await store.lease("slow", seconds=0)
        [fast] = await store.lease("fast")
        slow.status, slow.output = "succeeded", "slow"
        assert not await store.finish(slow)
        fast.status, fast.output = "succeeded", "fast"
        assert await store.finish(fast)
        kept = await store.rollout("1")
        assert kept is not None
        assert (kept.output, kept.attempt) == ("fast", 2)

    async def test_a_heartbeat_renews_the_leases_of_its_worker_only(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2")])
        await store.lease("one", ids=["1"], seconds=0)
        await store.lease("two", ids=["2"], seconds=0)
        await store.heartbeat("one")
        assert [rollout.id for rollout in await store.lease("three", limit=9)] == ["2"]

    async def test_an_attempt_is_finished_once(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        leased.status = "failed"
        leased.failure = Failure(type="timeout", message="too slow")
        assert await store.finish(leased)
        leased.status = "succeeded"
        assert not await store.finish(leased)
        kept = await store.rollout("1")
        assert kept is not None
        assert (kept.status, kept.failure) == ("failed", leased.failure)
        assert await store.lease("worker") == []

    async def test_an_attempt_finished_as_queued_is_handed_out_again(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        leased.status = "queued"
        leased.failed_attempts = [Failure(type="rate_limited", message="429", fault="infrastructure")]
        assert await store.finish(leased)
        [again] = await store.lease("worker")
        assert (again.attempt, again.failed_attempts) == (2, leased.failed_attempts)

    async def test_a_rollout_cannot_be_finished_as_running(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        with pytest.raises(StoreError, match=r"rollout 1 .* 'running'"):
            await store.finish(leased)

    async def test_closing_a_run_queues_what_was_leased_of_it(self, store: Store) -> None:
        await store.open_run(a_run())
        await store.enqueue([a_rollout("1"), a_rollout("2", run_id="other")])
        await store.lease("worker", limit=2)
        await store.close_run("run", "cancelled")
        assert [rollout.id for rollout in await store.lease("worker", limit=2)] == ["1"]

    async def test_workers_of_several_loops_and_threads_share_the_work_out(self, store: Store) -> None:
        await store.enqueue([a_rollout(str(number)) for number in range(100)])

        async def work(worker: str) -> list[str]:
            done = []
            while leased := await store.lease(worker, limit=3):
                for rollout in leased:
                    rollout.status = "succeeded"
                    assert await store.finish(rollout)
                    done.append(rollout.id)
            return done

        threads = [asyncio.to_thread(asyncio.run, work(str(number))) for number in range(4)]
        done = [id for part in await asyncio.gather(*threads) for id in part]
        assert sorted(done, key=int) == [str(number) for number in range(100)]

    async def test_an_output_that_no_format_holds_is_kept_in_a_plain_form_or_as_text(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        leased.status, leased.output = "succeeded", {"power": 10**30, "text": "\ud800", "set": {1}, "kind": object}
        assert await store.finish(leased)
        kept = await store.rollout("1")
        assert kept is not None
        assert kept.output == {"power": 10**30, "text": "?", "set": [1], "kind": "<class 'object'>"}

    # Recorded elsewhere

    async def test_a_recorded_rollout_is_there_with_its_task_and_spans(self, store: Store) -> None:
        await store.add_recorded(a_live_run(results={"dropped": "2"}), [recorded := a_recorded("r")])
        run = await store.run("live")
        assert run is not None
        assert (run.status, run.results) == ("live", {"dropped": "2"})
        rollout, spans = await store.rollout_with_spans("r")
        assert (rollout, [span.id for span in spans]) == (recorded.rollout, ["r-1-0"])
        assert await store.tasks("live") == {"task": recorded.task}

    async def test_recorded_twice_it_is_there_once_with_the_rewards_it_was_given_since(self, store: Store) -> None:
        await store.add_recorded(a_live_run(), [a_recorded("r")])
        assert await store.add_rewards("r", 1, [Reward(name="feedback", value=1.0)])
        await store.add_recorded(a_live_run(results={"note": "again"}), [a_recorded("r"), a_recorded("s")])
        assert [(one.id, one.outcome) for one in await store.rollouts("live")] == [("r", 1.0), ("s", None)]
        assert len(await store.spans("r")) == 1
        run = await store.run("live")
        assert run is not None
        assert run.results == {"note": "again"}

    async def test_what_is_recorded_of_another_run_is_refused_whole(self, store: Store) -> None:
        other = a_recorded("r")
        other.rollout.run_id = "other"
        unfinished = a_recorded("r")
        unfinished.rollout.status = "running"
        strange = a_recorded("r")
        strange.spans[0].rollout_id = "other"
        for wrong in (other, unfinished, strange):
            with pytest.raises(StoreRefusedError):
                await store.add_recorded(a_live_run(), [a_recorded("s"), wrong])
        assert await store.runs() == []

    async def test_nothing_is_recorded_into_a_run_of_an_algorithm(self, store: Store) -> None:
        await store.open_run(a_run("live"))
        with pytest.raises(StoreRefusedError, match="not a live one"):
            await store.add_recorded(a_live_run(), [a_recorded("r")])
        assert await store.rollout("r") is None

    # Spans and metrics

    async def test_a_span_comes_back_with_its_tokens(self, store: Store) -> None:
        written = a_span("1")
        store.add_spans([written])
        await store.flush()
        [read] = await store.spans("1")
        assert written.generation is not None
        assert read.generation is not None
        for name in ("prompt_ids", "response_ids", "logprobs"):
            before, after = getattr(written.generation, name), getattr(read.generation, name)
            assert after.dtype == before.dtype
            np.testing.assert_array_equal(after, before)
            setattr(written.generation, name, None)
            setattr(read.generation, name, None)
        assert read == written

    async def test_finish_makes_the_spans_handed_over_before_durable(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        [leased] = await store.lease("worker")
        store.add_spans([a_span("1", index) for index in (2, 0, 1)])
        leased.status = "succeeded"
        await store.finish(leased)
        assert [span.index for span in await store.spans("1")] == [0, 1, 2]

    async def test_a_span_written_twice_is_there_once_as_written_last(self, store: Store) -> None:
        first, second = a_span("1"), a_span("1")
        second.name = "again"
        store.add_spans([first, a_span("1", 1), second])
        await store.flush()
        store.add_spans([a_span("1", 1)])
        await store.flush()
        assert [(span.index, span.name) for span in await store.spans("1")] == [(0, "again"), (1, "chat")]

    async def test_a_span_is_kept_as_it_was_when_handed_over(self, store: Store) -> None:
        span = a_span("1")
        store.add_spans([span])
        span.name = "changed later"
        await store.flush()
        assert [span.name for span in await store.spans("1")] == ["chat"]

    async def test_spans_are_those_of_the_last_attempt_unless_another_is_asked_for(self, store: Store) -> None:
        await store.enqueue([a_rollout("1")])
        for attempt in (1, 2):
            await store.lease("worker", seconds=0)
            store.add_spans([a_span("1", attempt=attempt), a_span("unknown", attempt=attempt)])
        await store.flush()
        assert [span.attempt for span in await store.spans("1")] == [2]
        assert [span.attempt for span in await store.spans("unknown")] == [2]
        assert [span.attempt for span in await store.spans("1", attempt=1)] == [1]
        await store.lease("worker")
        assert await store.spans("1") == []

    async def test_a_rollout_comes_with_the_spans_of_its_last_attempt(self, store: Store) -> None:
        await store.enqueue([a_rollout("r"), a_rollout("bare")])
        for status in ("queued", "succeeded"):
            [leased] = await store.lease("worker", ids=["r"])
            store.add_spans([a_span("r", index, attempt=leased.attempt) for index in (1, 0)])
            leased.status = status
            assert await store.finish(leased)
        rollout, spans = await store.rollout_with_spans("r")
        assert (rollout.status, rollout.attempt) == ("succeeded", 2)
        assert [(span.attempt, span.index) for span in spans] == [(2, 0), (2, 1)]
        assert (await store.rollout_with_spans("bare"))[1] == []
        with pytest.raises(StoreError, match="there is no rollout nobody"):
            await store.rollout_with_spans("nobody")

    async def test_spans_come_from_any_thread(self, store: Store) -> None:
        def write(thread: int) -> None:
            for index in range(50):
                store.add_spans([a_span(str(thread), index, tokens=1)])

        await asyncio.gather(*(asyncio.to_thread(write, thread) for thread in range(8)))
        await store.flush()
        counts = [len(await store.spans(str(thread))) for thread in range(8)]
        assert counts == [50] * 8

    async def test_the_last_value_of_a_metric_stays(self, store: Store) -> None:
        store.add_metrics([Metric(run_id="run", step=2, name="b", value=1.0, at=1.0)])
        store.add_metrics(
            [
                Metric(run_id="run", step=2, name="b", value=2.0, at=2.0),
                Metric(run_id="run", step=2, name="a", value=math.inf, at=2.0),
                Metric(run_id="run", step=1, name="b", value=math.nan, at=2.0),
                Metric(run_id="other", step=1, name="b", value=0.0, at=2.0),
            ]
        )
        await store.flush()
        metrics = await store.metrics("run")
        assert [(metric.step, metric.name, metric.at) for metric in metrics] == [
            (1, "b", 2.0),
            (2, "a", 2.0),
            (2, "b", 2.0),
        ]
        np.testing.assert_equal([metric.value for metric in metrics], [math.nan, math.inf, 2.0])

    # Resources and checkpoints

    async def test_every_version_of_a_resource_is_kept_in_order(self, store: Store) -> None:
        versions = [
            Policy(name="policy", model="m", base_url="http://localhost", agents=("solver",)),
            Prompt(name="prompt", template="Answer {question}"),
            Policy(name="policy", version=1, model="m", base_url="http://localhost"),
            small := ModelChoice(name="model", model="small", input_price=0.5),
            ModelRouter(name="model", choices=(small,), router="contextual", path="here", learned="0"),
        ]
        for resource in [*versions, versions[0]]:
            await store.put_resource("run", resource)
        assert await store.resources("run") == versions
        assert [await store.resource("run", one.digest) for one in versions] == versions
        assert await store.resource("other", versions[0].digest) is None
        assert await store.resources("other") == []

    async def test_the_checkpoint_of_the_highest_step_is_the_last(self, store: Store) -> None:
        assert await store.last_checkpoint("run") is None
        for step in (1, 10, 9):
            await store.put_checkpoint(Checkpoint(run_id="run", step=step, state={"rng": [step]}, path=f"step-{step}"))
        assert await store.last_checkpoint("run") == Checkpoint(
            run_id="run", step=10, state={"rng": [10]}, path="step-10"
        )

    # Waiting for what ends

    async def test_wait_gives_what_has_ended_and_not_what_runs(self, store: Store) -> None:
        one = await finished(store, "1")
        two = await finished(store, "2", "failed")
        await store.enqueue([a_rollout("3"), a_rollout("4")])
        await store.lease("worker", ids=["3"], seconds=FOR_EVER)
        assert await store.wait(["2", "4", "3", "1"]) == [one, two]
        assert await store.wait(["3", "4"], seconds=0) == []
        assert await store.wait([]) == []

    async def test_wait_returns_as_soon_as_one_ends(self, store: Store) -> None:
        await store.enqueue([a_rollout("1"), a_rollout("2")])
        [leased] = await store.lease("worker", ids=["2"], seconds=FOR_EVER)
        waiting = asyncio.create_task(store.wait(["1", "2"]))
        await asyncio.sleep(0)
        leased.status = "succeeded"
        await store.finish(leased)
        assert [rollout.id for rollout in await waiting] == ["2"]

    async def test_an_attempt_to_be_tried_again_has_ended_nothing(self, store: Store) -> None:
        await finished(store, "1", "queued")
        assert await store.wait(["1"], seconds=0) == []

    async def test_what_another_opener_of_the_store_ends_is_seen(
        self, store: Store, open_again: Callable[[], Store]
    ) -> None:
        await store.enqueue([a_rollout("1")])
        waiting = asyncio.create_task(store.wait(["1"]))
        other = open_again()
        await finished(other, "1")
        assert [rollout.id for rollout in await waiting] == ["1"]
        await other.close()

    # Rewards that come later

    async def test_rewards_that_come_later_are_kept_with_the_others(self, store: Store) -> None:
        await finished(store, "1", rewards=[Reward(name="exact", value=1.0, at=1.0)])
        late = [Reward(name="liked", value=0.5, at=2.0), Reward(name="used", value=0.25, span_id="s", at=2.0)]
        assert await store.add_rewards("1", 1, late)
        kept = await store.rollout("1")
        assert kept is not None
        assert kept.rewards == [Reward(name="exact", value=1.0, at=1.0), *late]
        assert (kept.outcome, kept.total_reward) == (1.5, 1.75)

    async def test_a_reward_takes_the_place_of_that_of_its_name_and_span(self, store: Store) -> None:
        await finished(store, "1")
        for value in (0.0, 1.0):
            rewards = [Reward(name="liked", value=value), Reward(name="liked", value=value, span_id="s")]
            assert await store.add_rewards("1", 1, rewards)
        kept = await store.rollout("1")
        assert kept is not None
        assert [(reward.value, reward.span_id) for reward in kept.rewards] == [(1.0, None), (1.0, "s")]

    async def test_why_a_late_reward_has_no_value_is_kept_where_nothing_else_went_wrong(self, store: Store) -> None:
        broken = Failure(type="reward_error", message="the judge is away", fault="infrastructure")
        crashed = Failure(type="agent_error", message="crashed")
        await finished(store, "1")
        await finished(store, "2", "failed", failure=crashed)
        for id in ("1", "2"):
            assert await store.add_rewards(id, 1, [Reward(name="judge", value=None)], broken)
        assert [rollout.failure for rollout in await store.rollouts("run")] == [broken, crashed]

    async def test_only_the_last_attempt_takes_rewards_and_only_when_it_has_finished(self, store: Store) -> None:
        reward = [Reward(name="liked", value=1.0)]
        await finished(store, "1", "queued")
        assert not await store.add_rewards("1", 1, reward), "it is to be tried again"
        [leased] = await store.lease("worker", ids=["1"])
        assert not await store.add_rewards("1", 2, reward), "it still runs"
        leased.status = "succeeded"
        await store.finish(leased)
        assert not await store.add_rewards("1", 1, reward), "it is not the last attempt"
        assert not await store.add_rewards("unknown", 1, reward)
        assert await store.add_rewards("1", 2, reward)

    # Pages and sums

    async def test_rollouts_come_a_page_at_a_time(self, store: Store) -> None:
        await store.enqueue([a_rollout(id) for id in ("c", "aa", "b", "a", "d")])
        await store.enqueue([a_rollout("e", run_id="other")])
        first = await store.rollouts("run", limit=2)
        second = await store.rollouts("run", limit=2, after=first[-1].id)
        third = await store.rollouts("run", limit=2, after=second[-1].id)
        assert [[rollout.id for rollout in page] for page in (first, second, third)] == [["c", "aa"], ["b", "a"], ["d"]]
        assert [rollout.id for rollout in await store.rollouts("run", purpose="train", after="aa", limit=2)] == [
            "b",
            "a",
        ]

    async def test_a_run_comes_in_sums(self, store: Store) -> None:
        def planned(id: str, task: str, collection: str, **fields: Any) -> Rollout:
            return Rollout(id=id, run_id="run", group_id=task, task_id=task, collection=collection, **fields)

        evaluation = {"collection": "evaluate/0", "purpose": "evaluate", "variant": "greedy"}
        work = [
            planned("a1", "a", **evaluation),
            planned("a2", "a", **evaluation),
            planned("b1", "b", **evaluation),
            planned("b2", "b", **evaluation),
            planned("t", "a", "train/1", purpose="train", step=1),
        ]
        await store.enqueue(work)
        infrastructure = Failure(type="timeout", message="", fault="infrastructure")
        step = Reward(name="hint", value=9.0, step=True)
        values = {"a1": 1.0, "a2": 0.0, "b1": 1.0, "b2": 0.0}
        for id, value in values.items():
            [leased] = await store.lease("worker", ids=[id])
            leased.status, leased.failure = "failed", infrastructure if id == "b2" else None
            leased.rewards = [Reward(name="right", value=value), step]
            await store.finish(leased)
        store.add_metrics(
            [Metric(run_id="run", step=3, name="loss", value=1.0), Metric(run_id="x", step=9, name="loss", value=1.0)]
        )
        await store.flush()

        summary = await store.summary("run")
        assert summary.step == 3
        greedy, train = summary.collections
        assert (greedy.collection, greedy.purpose, greedy.step, greedy.variant) == (
            "evaluate/0",
            "evaluate",
            0,
            "greedy",
        )
        assert (greedy.rollouts, greedy.ended, greedy.scored) == (4, 4, 3)
        assert greedy.outcome == 0.75, "the mean over the tasks, as an evaluation reports it"
        assert (train.rollouts, train.ended, train.scored, train.outcome) == (1, 0, 0, None)
        await store.add_rewards("a2", 1, [Reward(name="right", value=1.0)])
        assert (await store.summary("run")).collections[0].outcome == 1.0
        assert (await store.summary("nowhere")).collections == []

    # What was tried, and what failed

    async def test_tries_that_came_out_alike_are_counted_together(self, store: Store) -> None:
        await _with_failures(store)
        counts = {(one.kind, one.agent, one.used, one.type): one for one in await store.tries("run")}
        assert {key: one.count for key, one in counts.items()} == {
            ("agent", "solver", None, None): 2,
            ("llm", "solver", "gpt", None): 1,
            ("llm", "solver", "gpt", "rate_limited"): 1,
            ("rollout", None, None, None): 1,
            ("rollout", None, None, "agent_error"): 1,
            ("rollout", None, None, "failed"): 1,
            ("tool", "solver", "search", None): 1,
            ("tool", "solver", "search", "tool_error"): 3,
        }
        failed = counts["tool", "solver", "search", "tool_error"]
        assert (failed.fault, failed.survived, failed.begin) == ("agent", 2, 0.0)
        limited = counts["llm", "solver", "gpt", "rate_limited"]
        assert (limited.fault, limited.survived) == ("infrastructure", 0), "the rollout failed as well"
        assert [one.example for one in counts.values() if one.type is None] == [None] * 4

    async def test_the_example_of_a_count_is_the_failure_that_ended_last(self, store: Store) -> None:
        await _with_failures(store)
        counts = {(one.kind, one.type): one for one in await store.tries("run")}
        step, rollout = counts["tool", "tool_error"].example, counts["rollout", "agent_error"].example
        assert step is not None
        assert (step.rollout_id, step.attempt, step.span_id, step.at) == ("1", 1, "1-1-2", 130.0)
        assert (step.message, step.where) == ("no answer", "agent.py:3")
        assert rollout is not None
        assert (rollout.rollout_id, rollout.span_id, rollout.at, rollout.message) == ("2", None, 240.0, "gave up")
        untyped = counts["rollout", "failed"].example
        assert untyped is not None
        assert untyped.message == ""

    async def test_tries_are_counted_by_when_they_ended(self, store: Store) -> None:
        await _with_failures(store)
        assert sum(one.count for one in await store.tries("run", since=120.0) if one.type == "tool_error") == 2
        tools = [one for one in await store.tries("run", bucket=60.0) if one.type == "tool_error"]
        assert [(one.begin, one.count) for one in tools] == [(60.0, 1), (120.0, 2)]
        for bucket in (0.5, 0.0, -1.0, math.inf, math.nan):
            with pytest.raises(StoreError, match="bucket: expected seconds, 1 at least"):
                await store.tries("run", bucket=bucket)

    async def test_a_span_written_again_is_one_try_that_came_out_as_written_last(self, store: Store) -> None:
        await _with_failures(store)
        [span, *_] = await store.spans("1")
        span.failure = None
        store.add_spans([span])
        await store.flush()
        counts = {one.type: one.count for one in await store.tries("run") if one.kind == "tool"}
        assert counts == {None: 2, "tool_error": 2}

    async def test_what_is_of_another_run_or_only_checks_or_was_cancelled_is_no_try(self, store: Store) -> None:
        await finished(store, "1", "cancelled", failure=Failure(type="cancelled", message=""))
        check = a_rollout("2")
        check.purpose = "check"
        await store.enqueue([check, a_rollout("3", run_id="other")])
        for rollout in await store.lease("worker", limit=2):
            rollout.status = "failed"
            store.add_spans([a_step(rollout.id, 0, "tool", "search", 5.0, "tool_error")])
            await store.finish(rollout)
        store.add_spans(
            [a_step("1", 0, "tool", "search", 5.0, "cancelled"), a_step("1", 1, "tool", "search", None, None)]
        )
        await store.flush()
        assert await store.tries("run") == []
        assert await store.tries("nowhere") == []
        assert sum(one.count for one in await store.tries("other")) == 2

    async def test_how_many_have_ended_is_known_as_soon_as_another_one_has(self, store: Store) -> None:
        assert await store.wait_for_ended("run", more_than=0, seconds=0) == 0
        await finished(store, "1")
        assert await store.wait_for_ended("run", more_than=0, seconds=FOR_EVER) == 1
        waiting = asyncio.ensure_future(store.wait_for_ended("run", more_than=1, seconds=FOR_EVER))
        await finished(store, "2", "cancelled")
        assert await waiting == 2
        assert await store.wait_for_ended("nowhere", more_than=0, seconds=0) == 0

    # Promotions

    async def test_promotions_are_kept_with_the_number_of_the_change_that_wrote_them_last(self, store: Store) -> None:
        prompt = Prompt(name="system", template="Be brief.")
        first = a_promotion(id="1", resources=[prompt], published=[prompt.digest], evidence={"n": 30}, created_at=3.0)
        assert await store.put_promotions("live", [first], revision=0)
        second = a_promotion(id="2", previous="1", reason="better")
        assert await store.put_promotions("live", [second, replace(first, status="superseded")], revision=1)
        assert await store.put_promotions("other", [a_promotion("other", id="1")], revision=0)
        mine = [replace(first, status="superseded", revision=2), replace(second, revision=2)]
        assert await store.promotions("live") == mine
        assert [(one.target, one.id) for one in await store.promotions()] == [
            ("live", "1"),
            ("live", "2"),
            ("other", "1"),
        ]
        assert await store.promotions("nowhere") == []

    async def test_promotions_that_somebody_has_changed_since_are_not_written(self, store: Store) -> None:
        assert await store.put_promotions("live", [a_promotion(id="1")], revision=0)
        assert not await store.put_promotions("live", [a_promotion(id="2")], revision=0)
        assert [one.id for one in await store.promotions("live")] == ["1"]

    async def test_a_promotion_of_another_target_is_refused(self, store: Store) -> None:
        with pytest.raises(StoreError, match="was to be written for live"):
            await store.put_promotions("live", [a_promotion(id="1"), a_promotion("other", id="2")], revision=0)
        assert await store.promotions() == []

    async def test_a_change_of_what_is_in_production_is_seen_by_who_waits_for_it(self, store: Store) -> None:
        assert await store.wait_for_promotions("live", newer_than=0, seconds=0) == []
        waiting = asyncio.ensure_future(store.wait_for_promotions("live", newer_than=0, seconds=FOR_EVER))
        await store.put_promotions("live", [a_promotion(id="1")], revision=0)
        assert [one.id for one in await waiting] == ["1"]
        assert [one.id for one in await store.wait_for_promotions("live", newer_than=1, seconds=0)] == ["1"]

    # Closing

    async def test_close_keeps_what_was_handed_over_and_may_be_called_twice(
        self, store: Store, open_again: Callable[[], Store]
    ) -> None:
        store.add_spans([a_span("1")])
        await store.close()
        await store.close()
        again = open_again()
        assert len(await again.spans("1")) == 1
        await again.close()

    async def test_a_closed_store_says_so(self, store: Store) -> None:
        await store.close()
        with pytest.raises(StoreError, match="is closed"):
            store.add_spans([a_span("1")])
        with pytest.raises(StoreError, match="is closed"):
            await store.flush()
        with pytest.raises(StoreError, match="is closed"):
            await store.runs()
        with pytest.raises(StoreError, match="is closed"):
            await store.wait(["1"])
