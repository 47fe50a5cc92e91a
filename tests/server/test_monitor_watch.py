"""Shares of failures are watched by run, purpose, agent, tool or model and type; a rollout counts once."""

from __future__ import annotations

from typing import Any

import pytest
from store_records import a_rollout, a_step

from agentlightning.records import Failure, Rollout, Span
from agentlightning.share_changes import FailureChange
from agentlightning.store.tries import Columns, columns_of
from agentlightning_server.monitor import tries, watch
from agentlightning_server.monitor.tries import AttemptSteps, Use
from agentlightning_server.monitor.watch import ShareWatch


def ended(number: int, **fields: Any) -> Rollout:
    """A rollout that ended at second ``number``."""
    rollout = a_rollout(str(number), run_id=fields.pop("run_id", "run"))
    rollout.attempt, rollout.status, rollout.ended_at = 1, "succeeded", float(number)
    for name, value in fields.items():
        setattr(rollout, name, value)
    return rollout


def tried(*spans: Span) -> list[tuple[Span, Columns]]:
    return [(span, columns_of(span)) for span in spans]


class Watched:
    """Steps gathered, and watched, as the monitor does."""

    def __init__(self) -> None:
        self.steps, self.watch = AttemptSteps(), ShareWatch()
        self.changes: list[FailureChange] = []

    def add(self, rollout: Rollout, *steps: Any) -> None:
        self.steps.add(tried(*steps))
        self.changes += self.watch.add(rollout, self.steps.end(rollout))


def searched(number: int, type: str | None, index: int = 0) -> Any:
    return a_step(str(number), index, "tool", "search", 1.0, type)


def test_a_tool_that_begins_to_fail_is_one_change_that_says_which_and_since_when() -> None:
    watched = Watched()
    for number in range(200):
        fails = number >= 100
        watched.add(ended(number), searched(number, "tool_error" if fails else None), searched(number, None, 1))
    [change] = watched.changes
    assert (change.kind, change.agent, change.used, change.type) == ("tool", "solver", "search", "tool_error")
    assert (change.run_id, change.purpose, change.fault) == ("run", "train", "agent")
    assert (change.change.failed_before, change.change.tried_before) == (0, 100)
    assert change.change.failed_since == change.change.tried_since < 15
    assert (change.changed_at, change.noticed_at) == (99.0, 99.0 + change.change.tried_since)
    assert change.rollout_id == str(int(change.noticed_at))
    assert change.rose
    assert str(change).startswith("tool_error of search (agent solver) in 100.0 % of rollouts, up from 0.0 %: ")


def test_many_failures_of_one_rollout_count_once() -> None:
    watched = Watched()
    for number in range(100):
        failing = number == 60
        watched.add(
            ended(number), *(searched(number, "tool_error" if failing else None, index) for index in range(150))
        )
    assert watched.changes == []


def test_a_failure_that_ends_is_a_change_too() -> None:
    watched = Watched()
    for number in range(200):
        failure = Failure(type="timeout", message="", fault="infrastructure") if number < 100 else None
        watched.add(ended(number, failure=failure, status="failed" if failure else "succeeded"))
    [change] = watched.changes
    assert (change.kind, change.type, change.fault, change.rose) == ("rollout", "timeout", "infrastructure", False)
    assert change.rollout_id == "99"


def test_runs_and_purposes_are_watched_apart() -> None:
    watched = Watched()
    for number in range(400):
        run_id, purpose = ("a", "b")[number % 2], ("train", "evaluate")[number // 2 % 2]
        fails = run_id == "a" and purpose == "train"
        watched.add(
            ended(number, run_id=run_id, purpose=purpose, status="failed" if fails else "succeeded"),
        )
    assert watched.changes == [], "each share is 0 or 1 all the time"


def test_a_rollout_that_is_tried_again_is_a_failure_and_one_that_was_cancelled_or_only_checks_is_no_try() -> None:
    steps = AttemptSteps()
    limited = Failure(type="rate_limited", message="", fault="infrastructure")
    retried = ended(1, status="queued", failed_attempts=[limited])
    assert steps.end(retried) == {Use("rollout"): {"rate_limited": "infrastructure"}}
    steps.add(tried(searched(2, None)))
    assert steps.end(ended(2, status="cancelled")) == {}
    assert steps.end(ended(2)) == {Use("rollout"): {}}, "its steps went with the attempt"
    assert steps.end(ended(3, status="queued")) == {}, "given back, and not failed"
    assert steps.end(ended(4, purpose="check")) == {}
    assert steps.end(ended(5, failure=Failure(type="cancelled", message=""))) == {}
    assert steps.end(ended(6, status="failed")) == {Use("rollout"): {"failed": "agent"}}


def test_turns_rewards_and_what_has_not_ended_are_no_steps() -> None:
    steps = AttemptSteps()
    steps.add(tried(a_step("1", 0, "agent", "x", 1.0, "agent_error"), a_step("1", 1, "reward", "x", 1.0, None)))
    steps.add(tried(a_step("1", 2, "llm", "gpt", None, None), a_step("1", 3, "llm", "gpt", 2.0, "timeout")))
    assert steps.end(ended(1)) == {Use("rollout"): {}, Use("llm", "solver", "gpt"): {"timeout": "agent"}}


def test_memory_is_bounded_whatever_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries, "MAX_ATTEMPTS", 5)
    monkeypatch.setattr(tries, "MAX_USES", 3)
    monkeypatch.setattr(watch, "MAX_WATCHED", 4)
    monkeypatch.setattr(watch, "MAX_TYPES", 2)
    monkeypatch.setattr(watch, "MAX_TIMES", 10)
    watched = Watched()
    for number in range(60):
        watched.steps.add(tried(a_step(f"never ends {number}", 0, "tool", "x", 1.0, None)))
        watched.add(
            ended(number, failure=Failure(type=f"type {number}", message="")),
            *(a_step(str(number), index, "tool", f"made up {number} {index}", 1.0, "e") for index in range(9)),
        )
    assert len(watched.steps._attempts) <= 5
    assert len(watched.watch._streams) == 4
    [stream] = [stream for key, stream in watched.watch._streams.items() if key[2] == Use("rollout")]
    assert len(stream._watched) == 2
    assert len(stream._times) <= 10
