"""Failures of a run counted: shares with intervals, by type, agent, tool and model, and over time; and how they are
shown."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from store_records import a_rollout, a_run, a_step

from agentlightning.cli import main
from agentlightning.failures import (
    MAX_BUCKETS,
    bucket_width,
    failure_buckets,
    failure_report,
    failure_shares,
    wilson_interval,
)
from agentlightning.formatting import parse_duration, parse_since
from agentlightning.records import Failure
from agentlightning.store.sqlite import SQLiteStore
from agentlightning.store.tries import FailureExample, TryCount


def count(kind: Any, type: str | None, number: int, **more: Any) -> TryCount:
    example = FailureExample(rollout_id=f"of {type}", attempt=1, at=more.get("begin", 0.0)) if type else None
    return TryCount(kind=kind, type=type, fault="agent" if type else None, count=number, example=example, **more)


COUNTS = [
    count("rollout", None, 90),
    count("rollout", "timeout", 10),
    count("agent", "agent_error", 3, agent="planner"),
    count("llm", None, 195, agent="planner", used="gpt"),
    count("llm", "rate_limited", 5, agent="planner", used="gpt"),
    count("tool", None, 40, agent="solver", used="search"),
    count("tool", "tool_error", 8, agent="solver", used="search", survived=6),
    count("tool", "timeout", 2, agent="solver", used="search"),
    count("tool", None, 50, agent="solver", used="sql"),
    count("tool", "tool_error", 1, agent="planner", used="search"),
]


def test_by_type_a_failure_is_a_share_of_all_tries_of_its_kind() -> None:
    shares = failure_shares(COUNTS)
    assert [(share.kind, share.type, share.failed, share.tried) for share in shares] == [
        ("rollout", "timeout", 10, 100),
        ("tool", "tool_error", 9, 101),
        ("llm", "rate_limited", 5, 200),
        ("agent", "agent_error", 3, 3),
        ("tool", "timeout", 2, 101),
    ]
    assert (shares[1].share, shares[1].survived) == (9 / 101, 6)
    assert shares[0].low < 0.1 < shares[0].high


def test_by_agent_tool_and_model_a_share_is_of_what_each_tried() -> None:
    def by(what: Any) -> list[tuple[Any, ...]]:
        return [(it.kind, it.name, it.failed, it.tried, it.types) for it in failure_shares(COUNTS, what)]

    assert by("tool") == [("tool", "search", 11, 51, {"tool_error": 9, "timeout": 2})]
    assert by("model") == [("llm", "gpt", 5, 200, {"rate_limited": 5})]
    assert by("agent") == [
        ("tool", "solver", 10, 100, {"tool_error": 8, "timeout": 2}),
        ("llm", "planner", 5, 200, {"rate_limited": 5}),
        ("agent", "planner", 3, 3, {"agent_error": 3}),
        ("tool", "planner", 1, 1, {"tool_error": 1}),
    ]


def test_the_example_of_a_share_is_the_latest() -> None:
    [share] = failure_shares([count("tool", "a", 1, used="x", begin=2.0), count("tool", "b", 1, used="x")], "tool")
    assert share.example is not None
    assert share.example.rollout_id == "of a"


def test_buckets_are_whole_and_one_in_which_nothing_ended_is_there_too() -> None:
    counts = [
        count("rollout", None, 3, begin=60.0),
        count("rollout", "timeout", 1, begin=60.0),
        count("tool", "tool_error", 2, begin=180.0),
        count("llm", None, 5, begin=180.0),
        count("agent", "agent_error", 1, begin=180.0),
    ]
    found = [
        (one.begin, one.rollouts, one.rollouts_failed, one.steps, one.steps_failed)
        for one in failure_buckets(counts, 60.0)
    ]
    assert found == [(60.0, 4, 1, 0, 0), (120.0, 0, 0, 0, 0), (180.0, 0, 0, 7, 2)]
    assert failure_buckets([], 60.0) == []


@given(st.floats(0, 20 * 365 * 86_400))
def test_a_width_cuts_any_time_into_so_many_buckets_at_most(seconds: float) -> None:
    assert seconds / bucket_width(seconds) <= MAX_BUCKETS


@pytest.mark.parametrize(
    ("failed", "tried", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (15, 100, 0.0931, 0.2328),
    ],
)
def test_the_interval_is_wilsons(failed: int, tried: int, low: float, high: float) -> None:
    assert wilson_interval(failed, tried) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10**6).flatmap(lambda tried: st.tuples(st.integers(0, tried), st.just(tried))))
def test_the_interval_holds_the_share_and_is_its_own_mirror(numbers: tuple[int, int]) -> None:
    failed, tried = numbers
    low, high = wilson_interval(failed, tried)
    assert 0 <= low <= failed / tried <= high <= 1
    assert wilson_interval(tried - failed, tried) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("failed", "tried"), [(0, 0), (-1, 3), (4, 3)])
def test_an_interval_of_what_cannot_be_is_refused(failed: int, tried: int) -> None:
    with pytest.raises(ValueError, match="expected 0 ≤ failed ≤ tried"):
        wilson_interval(failed, tried)


def test_since_is_so_long_ago_or_a_date() -> None:
    assert parse_since("2h") == pytest.approx(time.time() - 7200, abs=60)
    assert parse_since("2026-01-31") == datetime(2026, 1, 31).timestamp()
    with pytest.raises(ValueError, match="'soon': expected a time such as 24h or 7d, or a date"):
        parse_since("soon")


def test_a_duration_is_a_number_and_a_unit() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "12h", "7d")] == [90, 1800, 43_200, 604_800]
    for text in ("", "5", "0s", "-1h", "1.5h", "5x", "٣h", "7 d"):
        with pytest.raises(ValueError, match="expected a number and a unit"):
            parse_duration(text)


# agl failures


async def fill(store: SQLiteStore) -> None:
    """Run ``run`` of ten rollouts, of which two failed after a tool did; a third one survived that."""
    await store.open_run(a_run(created_at=940.0))
    for number in range(10):
        await store.enqueue([a_rollout(f"rollout{number}")])
        [leased] = await store.lease("worker")
        fails = number in (2, 5, 7)
        at = 1000.0 + 60 * number
        store.add_spans([a_step(leased.id, 0, "tool", "search", at, "tool_error" if fails else None)])
        leased.status, leased.ended_at = ("failed" if number in (2, 5) else "succeeded"), at + 1
        if number in (2, 5):
            leased.failure = Failure(type="agent_error", message=f"[red]gave\x1b up[/] {number}", where="agent.py:7")
        await store.finish(leased)
    await store.close_run("run", "succeeded")


@pytest.fixture
def url(tmp_path: Path) -> str:
    async def make() -> None:
        store = SQLiteStore(tmp_path / "store.db")
        await fill(store)
        await store.close()

    asyncio.run(make())
    return f"sqlite:///{tmp_path}/store.db"


def agl(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["failures", *arguments], env={"COLUMNS": "140"})


def test_the_command_counts_rollouts_and_steps_and_says_how_to_go_on(url: str) -> None:
    shown = agl("--store", url)
    assert shown.exit_code == 0, shown.output
    assert "Failures of name (run): 2 of 10 rollouts, 3 of 10 steps" in shown.output
    lines = [" ".join(line.split()) for line in shown.output.splitlines()]
    assert any(
        line.startswith("agent_error 2 of 10 rollouts 20.0 % 5.7 % … 51.0 % – rollout5 [red]gave␛ up[/] 5")
        for line in lines
    )
    assert any(
        line.startswith("tool_error 3 of 10 tool calls 30.0 % 10.8 % … 60.3 % 1 rollout7 search failed")
        for line in lines
    )
    assert f"next: agl show rollout5 --store {url}" in shown.output
    assert f"agl show run --rollouts failed --store {url}" in shown.output


def test_by_tool_it_says_which_failures_those_were(url: str) -> None:
    assert "search: 3 tool_error" in agl("run", "--by", "tool", "--store", url).output
    assert "No model failed." in agl("--by", "model", "--store", url).output


def test_over_time_there_is_a_bar_for_each_bucket(url: str) -> None:
    lines = agl("--over-time", "--since", "40000d", "--store", url).output.splitlines()
    assert sum("█" in line for line in lines) >= 1
    assert any("2 of 10" in line and "3 of 10" in line and "█" in line for line in lines)


def test_since_leaves_out_what_was_before(url: str) -> None:
    assert "0 of 0 rollouts" in agl("--since", "1h", "--store", url).output
    refused = agl("--since", "soon", "--store", url)
    assert (refused.exit_code, "expected a time such as 24h" in refused.output) == (2, True)


def test_json_is_the_whole_report(url: str) -> None:
    report = json.loads(agl("--json", "--over-time", "--store", url).output)
    assert (report["run_id"], report["rollouts"], report["rollouts_failed"], report["steps_failed"]) == (
        "run",
        10,
        2,
        3,
    )
    assert report["shares"][1]["example"]["span_id"] == "rollout7-1-0"
    assert sum(one["rollouts"] for one in report["over_time"]) == 10


def test_following_ends_with_the_run_it_follows(url: str) -> None:
    lines = agl("--follow", "--json", "--store", url).output.splitlines()
    assert [json.loads(line)["rollouts_failed"] for line in lines] == [2]
    assert "2 of 10 rollouts" in agl("--follow", "--store", url).output


def test_a_run_that_is_not_there_is_an_error_and_so_is_a_store_without_runs(url: str, tmp_path: Path) -> None:
    refused = agl("nowhere", "--store", url)
    assert (refused.exit_code, "there is no run 'nowhere'" in refused.output) == (2, True)
    asyncio.run(SQLiteStore(tmp_path / "empty.db").close())
    refused = agl("--store", f"sqlite:///{tmp_path}/empty.db")
    assert (refused.exit_code, "there is no run in this store" in refused.output) == (2, True)


async def test_a_run_without_failures_has_a_report_without_shares(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "store.db")
    report = await failure_report(store, "nowhere", over_time=True)
    assert (report.rollouts, report.steps, report.shares, report.over_time) == (0, 0, [], [])
    await store.close()
