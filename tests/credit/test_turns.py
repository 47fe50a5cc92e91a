"""MT-GRPO: which calls come before the first result of a tool."""

from __future__ import annotations

from typing import Any

import pytest
from credit.made import Call, advantages, group, member, tool

from agentlightning.records import Span

WEIGHED = {"name": "mt_grpo", "turn_weight": 1.0}


def shares_of_the_turn(calls: list[Call], *spans: Span) -> list[bool]:
    """Of each call of a rollout, whether the turn's reward is in its advantage: its outcome is that of the other."""
    calls[0].reward = 1.0
    one = group(member("a", calls, 0.5, spans=spans), member("b", [Call([1])], 0.5))
    return [value > 0.1 for value in advantages(WEIGHED, one)[0]]


def test_calls_until_the_first_result_share_the_turns_reward() -> None:
    assert shares_of_the_turn([Call([1]), Call([2]), Call([3])], tool("search", after=2)) == [True, True, False]
    found = shares_of_the_turn([Call([1]), Call([2]), Call([3])], tool("search", after=2), tool("look", after=1))
    assert found == [True, False, False]


def test_a_tool_that_ran_after_the_last_call_came_after_all() -> None:
    assert shares_of_the_turn([Call([1]), Call([2])], tool("submit", after=2)) == [True, True]


def test_a_call_that_a_tool_made_itself_comes_before_its_result() -> None:
    slow = tool("research", after=1)
    slow.ended_at = 35.0
    assert shares_of_the_turn([Call([1]), Call([2]), Call([3])], slow) == [True, True, True]
    assert shares_of_the_turn([Call([1]), Call([2]), Call([3]), Call([4])], slow) == [True, True, True, False]


def test_where_no_tool_was_recorded_the_messages_tell() -> None:
    asked: list[dict[str, Any]] = [{"role": "user", "content": "?"}]
    told = [*asked, {"role": "tool", "tool_call_id": "1", "content": "!"}]
    assert shares_of_the_turn([Call([1], messages=asked), Call([2], messages=told)]) == [True, False]


def test_a_rollout_without_a_tools_result_has_the_score_of_the_sum() -> None:
    one = group(member("a", [Call([1], reward=2.0), Call([2])], 0.0), member("b", [Call([1])], 1.0))
    assert advantages({"name": "mt_grpo", "turn_weight": 9.0}, one)[0] == pytest.approx([0.5**0.5] * 2, abs=1e-5)
