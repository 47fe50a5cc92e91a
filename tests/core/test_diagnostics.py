"""That nothing is learned is counted, shown where it is bad, and put in plain words at the end."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_run import row

from agentlightning import semconv
from agentlightning.algorithm import Evaluation
from agentlightning.diagnostics import Counts, findings, troubles
from agentlightning.records import Failure, Generation, Reward, Rollout, Span, Task
from agentlightning.store import Metric
from agentlightning.training_rows import Group, RolloutRows


def a_rollout(value: float | None, **fields: Any) -> Rollout:
    rewards = [Reward(name="score", value=value)]
    return Rollout(
        id="r",
        run_id="run",
        group_id="g",
        task_id="t",
        purpose="train",
        step=1,
        status="succeeded",
        rewards=rewards,
        **fields,
    )


def answer(text: str = "4", *, calls: tuple[Any, ...] = (), limit: int | None = 48, **fields: Any) -> Span:
    made = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": call}} for call in calls]
    said = Generation(response={"role": "assistant", "content": text, "tool_calls": made or None}, **fields)
    attributes = {} if limit is None else {semconv.REQUEST_MAX_TOKENS: limit}
    return Span(rollout_id="r", kind="llm", name="chat", attributes=attributes, generation=said)


def counted(*spans: Span, only_policy: bool = False) -> dict[str, float]:
    counts = Counts()
    counts.add(a_rollout(1.0), spans, only_policy=only_policy)
    return counts.metrics()


def a_group(*rewards: float | None, excluded: int = 0) -> Group:
    members = [RolloutRows(rollout=a_rollout(value)) for value in rewards]
    lost = [a_rollout(None, failure=Failure(type="timeout", message="", fault="infrastructure"))] * excluded
    return Group(id="g", task=Task(id="t", input=""), rollouts=members, excluded=lost)


def spread(*groups: Group) -> float | None:
    counts = Counts()
    for group in groups:
        counts.add_group(group)
    return counts.metrics().get("groups_without_spread")


def steps(*numbers: dict[str, float]) -> list[Metric]:
    return [
        Metric(run_id="run", step=step, name=name, value=value)
        for step, of_step in enumerate(numbers, 1)
        for name, value in of_step.items()
    ]


# Counting.


def test_rollouts_that_made_no_call_while_others_of_their_group_did_are_counted() -> None:
    group = a_group(1.0, 1.0, 0.0, 0.0)
    counts = Counts()
    for rollout in group.all_rollouts:
        counts.add(rollout, (), only_policy=True)
    group.rollouts[0].rows = [row("r", [1], [2])]
    group.rollouts[3].rollout.status = "failed"
    counts.add_group(group)
    assert counts.metrics()["rollouts_without_calls"] == 0.5
    assert "2/4 rollouts without a call" in troubles(counts.metrics())
    (finding,) = [each for each in findings(steps(counts.metrics())) if "no call" in each]
    assert finding.startswith("2 of 4 rollouts made no call of the policy while others of their task did")


def test_a_group_that_made_no_call_at_all_is_another_matter() -> None:
    assert a_group(1.0, 0.0).without_calls == []


@pytest.mark.parametrize(("reason", "share"), [("length", 1.0), ("max_tokens", 1.0), ("stop", 0.0), (None, 0.0)])
def test_an_answer_is_cut_off_where_its_length_ended_it(reason: str | None, share: float) -> None:
    metrics = counted(answer(finish_reason=reason))
    assert (metrics["answers"], metrics["answers_cut_off"]) == (1, share)
    assert metrics.get("answers_cut_off_at") == (48 if share else None)


def test_only_the_policys_answers_count_where_there_is_one() -> None:
    spans = answer(finish_reason="length"), answer(finish_reason="stop", policy="policy")
    assert counted(*spans, only_policy=True)["answers_cut_off"] == 0.0
    assert counted(*spans)["answers_cut_off"] == 0.5


TOOLS = [{"type": "function", "function": {"name": "add"}}]


@pytest.mark.parametrize(
    ("span", "calls", "malformed"),
    [
        (answer(calls=('{"a": 1}',), tools=TOOLS), 1, 0.0),
        (answer(calls=("",), tools=TOOLS), 1, 0.0),
        (answer(calls=('{"a": 1',), tools=TOOLS), 1, 1.0),
        (answer(calls=('"a"', "{}"), tools=TOOLS), 2, 0.5),
        (answer("[" * 5000, calls=("[" * 100_000,), tools=TOOLS), 1, 1.0),
        (answer('<tool_call>\n{"name": "add", "arguments": {"a": 1}', tools=TOOLS), 1, 1.0),
        (answer('{"name": "add", "arguments": {"a": 1}}', tools=TOOLS), 1, 1.0),
        (answer('```json\n{"name": "add", "parameters": {}}\n```', tools=TOOLS), 1, 1.0),
        (answer("<function=add>{}</function>", tools=TOOLS), 1, 1.0),
        (answer("[TOOL_CALLS] [", tools=TOOLS), 1, 1.0),
        (answer("I would say {4}", tools=TOOLS), 0, None),
        (answer("<think>a <tool_call> is how one asks</think>It is 4.", tools=TOOLS), 0, None),
        (answer("<tool_call>", tools=TOOLS, finish_reason="length"), 0, None),
        (answer("<tool_call> is a tag"), None, None),
    ],
)
def test_a_tool_call_that_nobody_could_read_is_malformed(
    span: Span, calls: int | None, malformed: float | None
) -> None:
    metrics = counted(span)
    assert (metrics.get("tool_calls"), metrics.get("tool_calls_malformed")) == (calls, malformed)


def test_a_custom_tool_takes_any_text() -> None:
    span = answer(tools=TOOLS)
    assert span.generation is not None
    span.generation.response = {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]}
    assert counted(span)["tool_calls_malformed"] == 0.0


def test_a_group_without_spread_has_one_reward() -> None:
    assert spread(a_group(1.0, 0.0), a_group(0.0, 0.0)) == 0.5
    assert spread(a_group(0.5, excluded=1)) == 1.0
    assert spread(a_group(0.5), a_group(None)) is None, "a single rollout is compared with nothing"


# The line of a step.


def test_a_step_that_goes_well_has_no_troubles() -> None:
    good = {"answers": 80, "answers_cut_off": 0.1, "groups": 8, "groups_without_spread": 0.5, "optimizer_steps": 1}
    assert troubles({**good, "rollouts": 64, "reward_min": 0.0, "reward_max": 1.0}) == []
    assert troubles({}) == []


def test_what_is_bad_about_a_step_is_said_in_a_few_words() -> None:
    assert troubles(
        {
            "answers": 80,
            "answers_cut_off": 73 / 80,
            "tool_calls": 30,
            "tool_calls_malformed": 0.3,
            "groups": 8,
            "groups_without_spread": 0.75,
            "rollouts": 64,
            "reward_min": 0.0,
            "reward_max": 1.0,
            "optimizer_steps": 0,
        }
    ) == ["73/80 answers cut off", "9/30 tool calls malformed", "6/8 groups without spread", "no optimizer step"]
    constant = {"rollouts": 8, "reward_min": 0.0, "reward_max": 0.0, "groups": 1, "groups_without_spread": 1.0}
    assert troubles(constant) == ["all rewards 0"]


# The last lines of a run.

SOUND = {"rollouts": 8, "reward_min": 0.0, "reward_max": 1.0, "optimizer_steps": 1, "groups": 2}


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (
            [{"answers": 40, "answers_cut_off": share, "answers_cut_off_at": 48} for share in (1.0, 33 / 40)],
            "73 of 80 answers were cut off at max_tokens=48: raise max_tokens",
        ),
        ([{"answers": 10, "answers_cut_off": 0.5}], "5 of 10 answers were cut off at the longest that they may be"),
        (
            [{"rollouts": 8, "reward_min": 0.0, "reward_max": 0.0, "optimizer_steps": 0}] * 2,
            "no optimizer step was made: all rewards were 0",
        ),
        (
            [{"rollouts": 8, "reward_min": 0.5, "reward_max": 0.5}],
            "the rewards never varied: the reward gave 0.5 to each of 8 rollouts",
        ),
        (
            [{"rollouts": 8, "reward_min": 0.0, "reward_max": 1.0, "optimizer_steps": 0}],
            "no optimizer step was made: no group of rollouts had different rewards",
        ),
        (
            [SOUND, {**SOUND, "optimizer_steps": 0}, {**SOUND, "optimizer_steps": 0}],
            "in 2 of 3 steps no optimizer step",
        ),
        ([{**SOUND, "groups_without_spread": 1.0}] * 3, "6 of 6 groups had no spread"),
        (
            [{"tool_calls": 10, "tool_calls_malformed": 0.5, "answers_with_tools": 10}],
            "5 of 10 tool calls were malformed",
        ),
        ([{"tool_calls": 0, "answers_with_tools": 80}], "tools were offered for 80 answers and never called"),
    ],
)
def test_a_finding_says_what_and_what_to_do(numbers: list[dict[str, float]], says: str) -> None:
    (finding, *_) = findings(steps(*numbers))
    assert finding.startswith(says)


def test_a_run_that_learned_has_no_findings() -> None:
    good = {**SOUND, "groups_without_spread": 0.5, "answers": 16, "answers_cut_off": 0.1}
    assert findings(steps(good, {**good, "reward_min": 1.0}), [evaluated(20)]) == []
    assert findings([]) == []


@pytest.mark.parametrize(
    ("count", "says"), [(1, ["1 held-out task cannot tell"]), (19, ["19 held-out tasks cannot tell"]), (20, [])]
)
def test_a_result_on_few_held_out_tasks_cannot_tell(count: int, says: list[str]) -> None:
    assert [finding[: len(said)] for finding, said in zip(findings([], [evaluated(count)]), says, strict=True)] == says


def evaluated(count: int) -> Evaluation:
    tasks = [Task(id=str(number), input="") for number in range(count)]
    return Evaluation(step=1, tasks=tasks, rollouts=[], rewards=[1.0] * count)


def test_what_rewards_counted_is_added_up_under_their_names() -> None:
    counts = Counts()
    for _ in range(2):
        rollout = a_rollout(1.0)
        rollout.rewards.append(Reward(name="judge", value=None, metrics={"calls": 3.0, "dollars": 0.25}))
        counts.add(rollout, [], only_policy=False)
    assert counts.metrics() == {"judge/calls": 6.0, "judge/dollars": 0.5}
