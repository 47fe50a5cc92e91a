"""Group rewards: rewards that see a task's rollouts together."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from agentlightning.config import RewardConfig
from agentlightning.errors import PluginError
from agentlightning.plugins import Plugins
from agentlightning.records import Reward, Rollout, Span, Task
from agentlightning.scoring import Scoring

TASK = Task(id="t", input="count")
LENGTHS = [3, 1, 2]
ROLLOUTS = [
    Rollout(id=f"r{length}", run_id="run", group_id="g", task_id="t", purpose="train", output="x" * length)
    for length in LENGTHS
]
SPANS = [[Span(rollout_id=rollout.id, kind="tool", name="counter")] for rollout in ROLLOUTS]


def ranked(rollouts: list[Rollout], task: Task) -> list[float]:
    """The share of the others whose output is longer."""
    lengths = [len(rollout.output) for rollout in rollouts]
    return [sum(other > length for other in lengths) / (len(lengths) - 1) for length in lengths]


async def best_tool(rollouts: list[Rollout], task: Task, spans: list[list[Span]]) -> list[Reward | None]:
    await asyncio.sleep(0)
    best = min(range(len(rollouts)), key=lambda number: len(rollouts[number].output))
    return [
        Reward(name="best", value=1.0, span_id=of_one[0].id, reason="the shortest") if number == best else None
        for number, of_one in enumerate(spans)
    ]


class Ranked:
    def __call__(self, rollouts: list[Rollout], task: Task) -> list[float]:
        return ranked(rollouts, task)


def alone(rollout: Rollout, task: Task) -> float:
    return 1.0


async def score_group(*rewards: Any, seconds: float = 60.0) -> list[tuple[list[Reward], list[Any]]]:
    scoring = Scoring(rewards, Plugins([]))
    try:
        return list(await scoring.score_group(ROLLOUTS, TASK, SPANS, seconds=seconds))
    finally:
        scoring.close()


@pytest.mark.parametrize("reward", [ranked, Ranked], ids=["function", "class"])
async def test_each_rollout_gets_its_value_from_the_look_at_all(reward: Any) -> None:
    scored = await score_group(reward)
    assert [[part.value for part in rewards] for rewards, _ in scored] == [[0.0], [1.0], [0.5]]


async def test_it_may_give_rewards_with_reasons_for_steps_and_none_for_others() -> None:
    first, second, third = await score_group(best_tool)
    assert [part.value for part in first.rewards + third.rewards] == [None, None]
    (best,) = second.rewards
    assert (best.name, best.value, best.step, best.span_id) == ("best_tool.best", 1.0, True, SPANS[1][0].id)
    assert best.reason == "the shortest"


async def test_a_rollout_alone_is_scored_without_it_and_a_group_without_the_others() -> None:
    scoring = Scoring([ranked, alone], Plugins([]))
    assert scoring.group_rewards == ["ranked"]
    rewards, _ = await scoring.score(ROLLOUTS[0], TASK, SPANS[0])
    assert [part.name for part in rewards] == ["alone"]
    scored = await scoring.score_group(ROLLOUTS, TASK, SPANS)
    assert [[part.name for part in rewards] for rewards, _ in scored] == [["ranked"]] * 3


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda: [1.0], "gave 1 values for 3 rollouts"),
        (lambda: 1.0, "gave float 1.0: expected a list"),
        (lambda: {"a": 1.0}, "gave dict"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
        (lambda: sys.exit(3), "raised SystemExit"),
    ],
    ids=["too few", "one number", "a dict", "raises", "exits"],
)
async def test_what_it_does_wrong_is_a_failure_of_every_rollout_and_of_no_run(gives: Any, message: str) -> None:
    def odd(rollouts: list[Rollout], task: Task) -> Any:
        return gives()

    for rewards, failures in await score_group(odd):
        assert [part.value for part in rewards] == [None]
        assert failures[0].type == "reward_error"
        assert failures[0].message.startswith(f"reward 'odd' {message}")


async def test_one_value_that_is_none_or_wrong_leaves_the_others() -> None:
    def odd(rollouts: list[Rollout], task: Task) -> Any:
        return [1.0, None, "good"]

    scored = await score_group(odd)
    assert [[part.value for part in rewards] for rewards, _ in scored] == [[1.0], [None], [None]]
    assert [len(failures) for _, failures in scored] == [0, 0, 1]


async def test_one_that_never_ends_is_given_up_at_the_limit() -> None:
    async def endless(rollouts: list[Rollout], task: Task) -> Any:
        await asyncio.Event().wait()

    for _, (failure,) in await score_group(endless, seconds=0.05):
        assert failure.message == "reward 'endless' took longer than runner.reward_timeout = 0.05 s"


async def test_it_runs_in_a_process_of_its_own_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
    from agentlightning.records import Reward

    def ranked(rollouts, task, spans):
        shortest = min(len(rollout.output) for rollout in rollouts)
        return [
            [Reward(name="short", value=len(rollout.output) == shortest, span_id=of_one[0].id, reason="looked")]
            for rollout, of_one in zip(rollouts, spans)
        ]
    """
    (tmp_path / "group_rewards_of_users.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    scored = await score_group(RewardConfig(name="group_rewards_of_users:ranked", process=True))
    assert [failures for _, failures in scored] == [[], [], []]
    parts = [part for rewards, _ in scored for part in rewards]
    assert [(part.value, part.step, part.reason) for part in parts] == [
        (0.0, True, "looked"),
        (1.0, True, "looked"),
        (0.0, True, "looked"),
    ]


async def test_the_rewards_of_the_readme_score() -> None:
    readme = (Path(__file__).parents[2] / "core" / "README.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "def tools" in block]
    blocks += [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "def shortest" in block]
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block, found)
    scoring = Scoring([found["tools"], found["shortest"]], Plugins([]))
    alone = await scoring.score(ROLLOUTS[0], TASK, SPANS[0])
    assert [(part.name, part.value, part.step) for part in alone.rewards] == [
        ("tools.used", 1.0, False),
        ("tools.ran", 1.0, True),
    ]
    together = await scoring.score_group(ROLLOUTS, TASK, SPANS)
    assert [[part.value for part in scored.rewards] for scored in together] == [[0.0], [1.0], [0.0]]


def test_one_that_takes_no_task_is_refused_before_anything_runs() -> None:
    def only(rollouts: list[Rollout]) -> list[float]:
        return []

    with pytest.raises(PluginError, match=r"reward 'only' takes .*: expected .*`rollouts`"):
        Scoring([only], Plugins([]))
