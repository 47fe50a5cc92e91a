"""Why rollouts came to nothing: causes counted by type, with class, message and line."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentlightning.causes import explain, explain_groups, explain_rollouts
from agentlightning.records import Failure, Reward, Rollout, Task
from agentlightning.training_rows import Group, RolloutRows

numbers = itertools.count()


def ended(failure: Failure | None = None, **fields: Any) -> Rollout:
    status = "succeeded" if failure is None else "failed"
    name = str(next(numbers))
    return Rollout(
        id=name,
        run_id="r",
        group_id="g",
        task_id="t",
        purpose="train",
        step=1,
        status=status,
        failure=failure,
        **fields,
    )


def raised(message: str, where: str | None = "agent.py:12") -> Failure:
    return Failure(type="agent_error", message=message, exception="builtins.ValueError", where=where)


LATE = Failure(type="timeout", message="the agent took longer than runner.timeout = 300 s")


def test_failures_are_counted_by_where_they_came_from_the_most_frequent_first() -> None:
    rollouts = [ended(LATE), *(ended(raised(f"no number in 'a{n}'")) for n in range(6)), ended(LATE)]
    assert explain_rollouts(rollouts) == (
        "8 of 8 rollouts failed: 6 × ValueError: no number in 'a0' (agent.py:12), "
        "2 × timeout: the agent took longer than runner.timeout = 300 s"
    )


def test_one_class_at_two_places_is_two_causes() -> None:
    said = explain_rollouts([ended(raised("a")), ended(raised("b", "agent.py:40"))])
    assert said == "2 of 2 rollouts failed: 1 × ValueError: a (agent.py:12), 1 × ValueError: b (agent.py:40)"


def test_what_could_not_be_scored_says_which_reward_and_why() -> None:
    unscored = [Reward(name="score", value=None, reason="the reward cannot score this rollout")]
    said = explain_rollouts([ended(rewards=unscored), ended(), ended(rewards=[Reward(name="score", value=1.0)])])
    assert said == (
        "2 of 3 could not be scored: 1 × score: the reward cannot score this rollout, 1 × it was given no reward"
    )


def test_many_causes_are_cut_to_the_most_frequent() -> None:
    said = explain_rollouts([ended(raised("x", f"agent.py:{line}")) for line in range(9)])
    assert said.endswith("4 × others")


def test_groups_without_a_token_of_the_policy_say_what_failed_and_what_did_not() -> None:
    good, bad = ended(rewards=[Reward(name="score", value=1.0)]), ended(raised("x"), rewards=[])
    member = RolloutRows(rollout=good)
    compared = Group(id="g", task=Task(id="t", input=1), rollouts=[member, member])
    assert explain_groups([compared]) == "in 2 of 2 rollouts no call of the agents was answered by the policy"
    mixed = Group(id="g", task=Task(id="t", input=1), rollouts=[member], excluded=[bad])
    assert explain_groups([mixed]) == (
        "1 of 2 rollouts failed: 1 × ValueError: x (agent.py:12); "
        "in 1 of 2 rollouts no call of the agents was answered by the policy"
    )


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (raised("no number"), "ValueError: no number (agent.py:12)"),
        (raised("", None), "ValueError"),
        (raised("a\n  b"), "ValueError: a b (agent.py:12)"),
        (Failure(type="agent_error", message="made by hand"), "agent_error: made by hand"),
        (
            Failure(type="context_too_long", message="80 tokens", exception="openai.BadRequestError", where="a.py:3"),
            "context_too_long: BadRequestError: 80 tokens (a.py:3)",
        ),
    ],
)
def test_a_failure_in_one_line(failure: Failure, text: str) -> None:
    assert explain(failure) == text


def test_a_long_message_is_cut() -> None:
    assert len(explain(raised("x" * 10_000))) < 400
