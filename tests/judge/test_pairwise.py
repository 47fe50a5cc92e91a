"""Rollouts compared by twos, each pair in both orders."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from judge.scripted import Seen, by_place, by_worth, judge, make, rollouts, total, values
from stub_answers import Answer, Raw, Received, text
from stub_server import StubServer

OUTPUTS = ("4", "four", "it is four")


def made(stub: StubServer, **options: Any) -> Any:
    return make(stub.base_url, mode="pairwise", **options)


async def test_each_pair_is_asked_about_in_both_orders(stub: StubServer) -> None:
    stub.reply(by_worth())
    await judge(made(stub), rollouts(*OUTPUTS))
    asked = Counter(tuple(Seen(request).candidates.values()) for request in stub.requests)
    assert len(asked) == 6
    assert set(asked.values()) == {1}
    assert all(pair[::-1] in asked for pair in asked)


@pytest.mark.parametrize("scores", ["bradley_terry", "win_rate"])
async def test_who_wins_more_has_the_higher_score(stub: StubServer, scores: str) -> None:
    stub.reply(by_worth())
    low, middle, high = values(await judge(made(stub, scores=scores), rollouts(*OUTPUTS)))
    assert (low, middle, high) == ((0.0, 0.5, 1.0) if scores == "win_rate" else (low, 0.5, 1 - low))  # type: ignore[operator]
    assert 0.0 <= low < middle < high <= 1.0  # type: ignore[operator]


@pytest.mark.parametrize("better", ["A", "B"])
async def test_a_judge_who_goes_by_the_order_makes_ties_and_is_counted(stub: StubServer, better: str) -> None:
    stub.reply(by_place(better))
    rewards = await judge(made(stub), rollouts(*OUTPUTS))
    assert values(rewards) == [0.5, 0.5, 0.5]
    assert (total(rewards, "pairs"), total(rewards, "contradictions")) == (3, 3)
    assert total(rewards, "first_preferred") == (3 if better == "A" else 0)


async def test_a_judge_who_keeps_contradicting_itself_is_told_of_once(
    stub: StubServer, caplog: pytest.LogCaptureFixture
) -> None:
    stub.reply(by_place("A"))
    one = made(stub)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            await judge(one, rollouts(*(f"{number} {place}" for place in range(5))))
    told = [record.getMessage() for record in caplog.records if "contradicted itself" in record.getMessage()]
    assert len(told) == 1
    assert "in 20 of 20 pairs" in told[0]


async def test_a_win_in_one_order_and_a_tie_in_the_other_is_a_tie_and_no_contradiction(stub: StubServer) -> None:
    def reply(request: Received) -> Answer:
        seen = Seen(request)
        return text(seen.verdict(better="A" if seen.candidates["A"] == "four" else "tie"))

    stub.reply(reply)
    rewards = await judge(made(stub), rollouts("4", "four"))
    assert values(rewards) == [0.5, 0.5]
    assert total(rewards, "contradictions") == 0


async def test_a_large_group_is_compared_in_a_balanced_part_of_its_pairs(stub: StubServer) -> None:
    stub.reply(by_worth())
    rewards = await judge(made(stub, opponents=4), rollouts(*("x" * number for number in range(1, 13))))
    met = Counter(shown for request in stub.requests for shown in Seen(request).candidates.values())
    assert set(met.values()) == {8}  # four others, in both orders
    assert total(rewards, "pairs") == 24
    assert values(rewards)[0] < 0.3 < 0.7 < values(rewards)[-1]  # type: ignore[operator]


async def test_a_pair_without_an_answer_is_left_out_and_the_others_count(stub: StubServer) -> None:
    stub.reply(unless("it is four", "4"))
    rewards = await judge(made(stub), rollouts(*OUTPUTS))
    assert total(rewards, "pairs") == 2
    assert values(rewards)[0] < values(rewards)[1] < values(rewards)[2]  # type: ignore[operator]
    assert "did not answer" in (rewards[0].reason or "")


async def test_who_was_compared_with_none_has_no_score(stub: StubServer) -> None:
    stub.reply(unless("4"))
    rewards = await judge(made(stub), rollouts(*OUTPUTS))
    assert [reward.value is None for reward in rewards] == [True, False, False]
    assert "the judge did not answer: judge at http://127.0.0.1" in (rewards[0].reason or "")


def unless(*outputs: str) -> Callable[[Received], Answer | Raw]:
    """Fails where all of these are shown."""
    good = by_worth()

    def reply(request: Received) -> Answer | Raw:
        shown = Seen(request).candidates.values()
        return Raw(400, b"{}") if all(output in shown for output in outputs) else good(request)

    return reply
