"""A group ranked by the judge: scores by rank, whatever the order in which it is shown or given."""

from __future__ import annotations

import random

import pytest
from judge.scripted import Seen, by_place, by_worth, judge, make, rollouts, total, values
from stub_answers import Raw, text
from stub_server import StubServer

OUTPUTS = ("4", "four", "it is four", "I think it is four")


async def test_the_rank_is_the_score(stub: StubServer) -> None:
    stub.reply(by_worth())
    rewards = await judge(make(stub.base_url), rollouts(*OUTPUTS))
    assert values(rewards) == [0.0, 0.333333, 0.666667, 1.0]
    assert len(stub.requests) == 1


async def test_the_judges_words_are_the_reason(stub: StubServer) -> None:
    stub.reply(by_worth())
    rewards = await judge(make(stub.base_url), rollouts("4", "four"))
    assert [reward.reason for reward in rewards] == ["rank 2 of 2. About '4'.", "rank 1 of 2. About 'four'."]


async def test_the_order_of_the_rollouts_changes_nothing_and_asks_the_same(stub: StubServer) -> None:
    stub.reply(by_worth())
    given = rollouts(*OUTPUTS)
    expected = dict(zip(OUTPUTS, values(await judge(make(stub.base_url), given)), strict=True))
    random.Random(1).shuffle(given)
    again = values(await judge(make(stub.base_url), given))
    assert {rollout.output: value for rollout, value in zip(given, again, strict=True)} == expected
    assert stub.requests[0].json == stub.requests[1].json


async def test_candidates_are_shown_in_a_random_order(stub: StubServer) -> None:
    stub.reply(by_worth())
    firsts, one = set(), make(stub.base_url)
    for number in range(12):
        await judge(one, rollouts(f"a {number}", f"b {number}"))
        firsts.add(Seen(stub.requests[-1]).candidates["A"][0])
    assert firsts == {"a", "b"}


async def test_ties_share_the_mean_of_their_ranks(stub: StubServer) -> None:
    stub.reply(by_worth())
    assert values(await judge(make(stub.base_url), rollouts("one", "two", "seven"))) == [0.25, 0.25, 1.0]


async def test_rollouts_that_look_the_same_are_shown_once_and_get_the_same(stub: StubServer) -> None:
    stub.reply(by_worth())
    rewards = await judge(make(stub.base_url), rollouts("4", "four", "4", "seven"))
    assert values(rewards) == [0.166667, 0.666667, 0.166667, 1.0]
    assert sorted(Seen(stub.requests[0]).candidates.values()) == ["4", "four", "seven"]


async def test_a_group_that_is_all_the_same_gets_the_same_and_nothing_is_asked(stub: StubServer) -> None:
    rewards = await judge(make(stub.base_url), rollouts("4", "4", "4"))
    assert values(rewards) == [0.5, 0.5, 0.5]
    assert stub.requests == []


async def test_a_second_ranking_shows_the_reverse_order(stub: StubServer) -> None:
    stub.reply(by_worth())
    await judge(make(stub.base_url, samples=2), rollouts(*OUTPUTS))
    first, second = (list(Seen(request).candidates.values()) for request in stub.requests)
    assert first == second[::-1]


async def test_a_judge_who_goes_by_the_order_makes_ties_and_is_counted(stub: StubServer) -> None:
    stub.reply(by_place("A"))
    rewards = await judge(make(stub.base_url, samples=2), rollouts(*OUTPUTS))
    assert values(rewards) == [0.5] * 4
    assert (total(rewards, "pairs"), total(rewards, "contradictions")) == (6, 6)


async def test_a_judge_who_keeps_to_its_word_does_not_contradict_itself(stub: StubServer) -> None:
    stub.reply(by_worth())
    rewards = await judge(make(stub.base_url, samples=2), rollouts(*OUTPUTS))
    assert (total(rewards, "pairs"), total(rewards, "contradictions")) == (6, 0)


@pytest.mark.parametrize("at_once", [2, 3, 5])
async def test_a_large_group_is_ranked_in_parts_that_overlap(stub: StubServer, at_once: int) -> None:
    stub.reply(by_worth())
    outputs = ["x" * number for number in range(1, 10)]
    rewards = await judge(make(stub.base_url, at_once=at_once, samples=4), rollouts(*outputs))
    assert max(len(Seen(request).candidates) for request in stub.requests) == at_once
    ranked = values(rewards)
    # Not all are compared with all, so neighbours may change places; far ones may not.
    assert all(ranked[low] < ranked[low + 5] for low in range(4))  # type: ignore[operator]


async def test_one_ranking_of_several_that_fails_is_told_and_the_others_count(stub: StubServer) -> None:
    stub.reply(Raw(500, b"no"), by_worth())
    config = {"samples": 2, "concurrency": 1}
    rewards = await judge(make(stub.base_url, **config), rollouts("4", "four"))
    assert values(rewards) == [0.0, 1.0]
    assert "did not answer" in (rewards[0].reason or "")


async def test_a_lone_rollout_is_scored_by_itself(stub: StubServer) -> None:
    stub.reply(by_worth(lambda shown: 5.5))
    (reward,) = await judge(make(stub.base_url), rollouts("4"))
    assert reward.value == 0.5
    assert (reward.reason or "").startswith("5.5 of 1 to 10.")


@pytest.mark.parametrize("purpose", ["evaluate", "validate", "check"])
async def test_what_is_evaluated_is_scored_by_itself(stub: StubServer, purpose: str) -> None:
    """Ranks among the samples of one version have the same mean however good it is."""
    stub.reply(by_worth(lambda shown: 10.0))
    assert values(await judge(make(stub.base_url), rollouts("4", "four", purpose=purpose))) == [1.0, 1.0]


async def test_no_judge_is_no_score(stub: StubServer) -> None:
    stub.reply(text("I cannot decide."), text("Really."), text("No."))
    rewards = await judge(make(stub.base_url), rollouts("4", "four"))
    assert values(rewards) == [None, None]
    assert "gave no reply that can be used in 3 attempts" in (rewards[0].reason or "")
