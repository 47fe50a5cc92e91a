"""Each rollout scored by itself, on a scale."""

from __future__ import annotations

from typing import Any

import pytest
from judge.scripted import TASK, Seen, by_worth, make, rollouts
from stub_answers import Received, text
from stub_server import StubServer

from agentlightning.records import Reward, Rollout
from agentlightning.scoring.component import make_component


class OneJudge:
    """Plugins whose reward ``judge`` is this one."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge

    def find(self, kind: str, name: str) -> Any:
        return self._judge


async def score(stub: StubServer, rollout: Rollout, **options: Any) -> Reward:
    judge: Any = make(stub.base_url, mode="absolute", **options)
    reward: Reward = await judge(rollout, TASK, [])
    return reward


@pytest.mark.parametrize(("scale", "given", "value"), [([1, 10], 10, 1.0), ([1, 10], 1, 0.0), ([-1, 1], 0.5, 0.75)])
async def test_a_score_is_brought_to_the_range_from_0_to_1(
    stub: StubServer, scale: list[float], given: float, value: float
) -> None:
    stub.reply(by_worth(lambda shown: given))
    assert (await score(stub, *rollouts("4"), scale=scale)).value == value


async def test_several_scores_are_averaged_and_asked_for_with_seeds_of_their_own(stub: StubServer) -> None:
    given = {None: 1.0, 1: 4.0, 2: 10.0}

    def reply(request: Received) -> Any:
        return by_worth(lambda shown: given[request.json.get("seed")])(request)

    stub.reply(reply)
    reward = await score(stub, *rollouts("4"), samples=3, model={"temperature": 0.7})
    assert reward.value == pytest.approx((0 + 3 + 9) / 27)
    assert (reward.reason or "").startswith("1, 4, 10 of 1 to 10.")


async def test_one_score_of_several_that_is_not_given_is_not_zero(stub: StubServer) -> None:
    stub.reply(*[text("no")] * 3, by_worth(lambda shown: 10.0))
    reward = await score(stub, *rollouts("4"), samples=2, model={"temperature": 0.7}, concurrency=1)
    assert reward.value == 1.0


def repr_start(value: object) -> str:
    return repr(value)[:10]


@pytest.mark.parametrize("wrong", [11, 0, -1, "8", True, None, float("nan"), 10**400, [7]], ids=repr_start)
async def test_what_is_no_score_on_the_scale_is_asked_for_again(stub: StubServer, wrong: Any) -> None:
    stub.reply(lambda request: text(Seen(request).verdict(score=wrong)))
    reward = await score(stub, *rollouts("4"), retries=1)
    assert reward.value is None
    assert "expected a number from 1 to 10" in (reward.reason or "")
    again = stub.requests[1].json["messages"][-1]["content"]
    assert again.startswith("Your reply cannot be used:")
    assert "expected a number from 1 to 10" in again


@pytest.mark.parametrize(("mode", "of_group"), [("absolute", False), ("relative", True), ("pairwise", True)])
def test_the_mode_says_whether_it_sees_a_group(stub: StubServer, mode: str, of_group: bool) -> None:
    component = make_component(make(stub.base_url, mode=mode), OneJudge(None), "reward")  # type: ignore[arg-type]
    assert (component.of_group, component.wants_spans, component.is_async) == (of_group, True, True)
