"""Replies that cannot be used, that do not come, and what asking took."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from judge.scripted import TASK, Seen, by_worth, judge, make, rollouts, total, values
from stub_answers import Answer, Choice, Raw, Received, text
from stub_server import StubServer

from agentlightning.plugins import Plugins
from agentlightning.scoring import Scoring

GARBAGE = ["", "   ", "I would say A.", "{", "[]", "null", '{"token": 7}', '{"a":' * 3000, "\u0000", "{}" * 5000]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_asked_about_again_and_counted(stub: StubServer, garbage: str) -> None:
    stub.reply(text(garbage), by_worth())
    rewards = await judge(make(stub.base_url), rollouts("4", "four"))
    assert values(rewards) == [0.0, 1.0]
    assert (total(rewards, "calls"), total(rewards, "unusable")) == (2, 1)
    assert "there is no JSON object" in stub.requests[1].json["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("ranking", "why"),
    [
        ([["A"]], '"ranking" misses B'),
        ([["A"], ["A", "B"]], '"ranking" names A twice'),
        ([["A"], ["C"]], "\"ranking\" names 'C': expected the letters A, B"),
        ([["AB"]], "\"ranking\" names 'AB'"),
        ([["A"], [{"B": 1}]], '"ranking" names'),
        ("AB", '"ranking" is no list'),
        (None, '"ranking" is no list'),
    ],
)
async def test_what_is_wrong_with_a_ranking_is_said(stub: StubServer, ranking: Any, why: str) -> None:
    stub.reply(lambda request: text(Seen(request).verdict(ranking=ranking)))
    rewards = await judge(make(stub.base_url, retries=1), rollouts("4", "four"))
    assert values(rewards) == [None, None]
    assert why in (rewards[0].reason or "")
    assert why in stub.requests[1].json["messages"][-1]["content"]


async def test_a_ranking_without_inner_lists_is_one(stub: StubServer) -> None:
    stub.reply(lambda request: text(Seen(request).verdict(ranking=["B", "A"])))
    assert sorted(values(await judge(make(stub.base_url), rollouts("4", "four")))) == [0.0, 1.0]  # type: ignore[type-var]


async def test_a_reply_that_was_cut_off_is_said_to_be(stub: StubServer) -> None:
    stub.reply(lambda request: Answer([Choice('{"token": "', finish_reason="length")]))
    (reward, _) = await judge(make(stub.base_url, retries=0), rollouts("4", "four"))
    assert "the reply was cut off at max_tokens" in (reward.reason or "")


async def test_reasons_are_not_demanded(stub: StubServer) -> None:
    stub.reply(lambda request: text(f'{{"token": "{Seen(request).token}", "reasons": [1], "better": "a"}}'))
    rewards = await judge(make(stub.base_url, mode="pairwise"), rollouts("4", "four"))
    assert values(rewards) == [0.5, 0.5]


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_an_endpoint_that_fails_is_no_score_and_says_which(stub: StubServer, status: int) -> None:
    stub.reply(lambda request: Raw(status, b'{"error": {"message": "no"}}'))
    rewards = await judge(make(stub.base_url), rollouts("4", "four"))
    assert values(rewards) == [None, None]
    assert f"judge at {stub.base_url}" in (rewards[0].reason or "")
    assert total(rewards, "failed") == 1


async def test_an_endpoint_that_does_not_answer_is_given_up(stub: StubServer) -> None:
    held = threading.Event()
    stub.reply(text("late", hold=held))
    try:
        rewards = await judge(make(stub.base_url, model={"timeout": 0.1}), rollouts("4", "four"))
    finally:
        held.set()
    assert values(rewards) == [None, None]
    assert "no answer within 0.1 s" in (rewards[0].reason or "")


async def test_a_judge_that_takes_longer_than_a_reward_may_ends_there(stub: StubServer) -> None:
    held = threading.Event()
    stub.reply(lambda request: text("late", hold=held))
    scoring = Scoring([make(stub.base_url)], Plugins([]))
    given = rollouts("4", "four")
    try:
        scored = await scoring.score_group(given, TASK, [[], []], seconds=0.2)
    finally:
        held.set()
    assert [rewards[0].value for rewards, _ in scored] == [None, None]
    assert [failures[0].type for _, failures in scored] == ["reward_error", "reward_error"]


async def test_what_it_cost_is_spread_over_the_group(stub: StubServer) -> None:
    stub.reply(by_worth())
    prices = {"input_price": 1e6, "output_price": 2e6}
    rewards = await judge(make(stub.base_url, mode="pairwise", model=prices), rollouts("4", "four", "it is four"))
    tokens = total(rewards, "input_tokens"), total(rewards, "output_tokens")
    assert (total(rewards, "calls"), min(tokens) > 0) == (6, True)
    assert total(rewards, "dollars") == pytest.approx(tokens[0] + 2 * tokens[1])
    assert [reward.metrics["calls"] for reward in rewards] == [2, 2, 2]


async def test_no_more_calls_are_made_at_once_than_may_be(stub: StubServer) -> None:
    """Two at a time: neither alone, which would break the barrier, nor three."""
    barrier, lock, running, most = threading.Barrier(2), threading.Lock(), [0], [0]
    good = by_worth()

    def reply(request: Received) -> Answer:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(timeout=20)
        with lock:
            running[0] -= 1
        return good(request)

    stub.reply(reply)
    rewards = await judge(make(stub.base_url, mode="pairwise", concurrency=2), rollouts("4", "four", "it is four"))
    assert total(rewards, "calls") == 6
    assert most == [2]
