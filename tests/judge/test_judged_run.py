"""A judge in a run, found by its name: groups are ranked, evaluations scored, costs logged, and nothing asked twice."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from judge.judged_run import collect, judge_config, metrics_of, rollouts_of, trainer
from judge.scripted import Seen, by_worth
from stub_answers import Raw, text
from stub_server import StubServer


def worth(shown: str) -> float:
    return min(10.0, float(len(shown)))


async def test_groups_are_ranked_and_what_is_evaluated_is_scored(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_worth(worth))
    result = await trainer(tmp_path, [judge_config(stub.base_url, tmp_path)]).fit_async()
    rollouts = await rollouts_of(tmp_path, result.run_id)
    trained = [rollout.outcome for rollout in rollouts if rollout.purpose == "train"]
    assert trained == [0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0] * 4
    (evaluated,) = [rollout for rollout in rollouts if rollout.purpose == "evaluate"]
    assert evaluated.outcome == pytest.approx((5 - 1) / 9)  # its agent's fifth answer, of five characters


async def test_what_judging_cost_is_logged_with_the_step(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_worth(worth))
    result = await trainer(tmp_path, [judge_config(stub.base_url, tmp_path)]).fit_async()
    logged = await metrics_of(tmp_path, result.run_id)
    rollouts = [one for one in await rollouts_of(tmp_path, result.run_id) if one.purpose == "train"]
    assert logged["judge/calls"] == 4
    assert logged["judge/rankings"] == 4
    tokens = logged["judge/input_tokens"] + logged["judge/output_tokens"]
    assert logged["judge/dollars"] == pytest.approx(tokens / 1e6)
    kept = sum(reward.metrics["dollars"] for rollout in rollouts for reward in rollout.rewards)
    assert kept == pytest.approx(logged["judge/dollars"])


async def test_a_run_that_goes_on_asks_nothing_twice(stub: StubServer, tmp_path: Path) -> None:
    stub.reply(by_worth(worth))

    async def cut_off(run: Any) -> None:
        async with aclosing(run.collect(run.tasks, group_size=4, step=1)) as groups:
            async for _ in groups:
                raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        await trainer(tmp_path, [judge_config(stub.base_url, tmp_path)], cut_off).fit_async()
    result = await trainer(tmp_path, [judge_config(stub.base_url, tmp_path)]).fit_async(resume=True)
    asked = [(*sorted(seen.candidates.values()), seen.text[:60]) for seen in map(Seen, stub.requests)]
    assert len(set(asked)) == len(asked)
    assert {one.outcome is None for one in await rollouts_of(tmp_path, result.run_id)} == {False}


@pytest.mark.parametrize("reply", [text("I cannot say."), Raw(503, b"")], ids=["garbage", "away"])
async def test_a_judge_that_cannot_judge_ends_no_run(stub: StubServer, tmp_path: Path, reply: Any) -> None:
    stub.reply(lambda request: reply)
    result = await trainer(tmp_path, [judge_config(stub.base_url, tmp_path), shortness]).fit_async()
    assert result.status == "succeeded"
    for rollout in await rollouts_of(tmp_path, result.run_id):
        of = {reward.name: reward for reward in rollout.rewards}
        assert (of["judge"].value, of["shortness"].value is None, rollout.outcome) == (None, False, None)
        assert "judge" in (of["judge"].reason or "")


async def test_a_judge_that_answers_at_times_scores_at_those(stub: StubServer, tmp_path: Path) -> None:
    good = by_worth(worth)
    stub.reply(lambda request: Raw(503, b"") if "task 2" in Seen(request).text else good(request))
    result = await trainer(tmp_path, [judge_config(stub.base_url, tmp_path)], collect).fit_async()
    scored = {one.task_id: one.outcome is not None for one in await rollouts_of(tmp_path, result.run_id)}
    assert scored == {"t0": True, "t1": True, "t2": False, "t3": True}


def shortness(rollout: Any, task: Any) -> float:
    return 1.0 / len(rollout.output)
