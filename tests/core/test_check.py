"""The first rollout: what it tells, and what of that makes a run pointless."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from agentlightning import semconv
from agentlightning.check import CheckReport, inspect_rollout, render
from agentlightning.records import (
    AnyResource,
    Failure,
    Generation,
    ModelChoice,
    Policy,
    Reward,
    Rollout,
    Span,
    Task,
    Usage,
)

POLICY = Policy(name="policy", model="tiny", base_url="http://127.0.0.1:1")
TOOL = {"type": "function", "function": {"name": "calculator", "parameters": {}}}
BOOM = Failure(type="agent_error", message="boom", exception="builtins.ValueError", where="agent.py:12")
DOWN = Failure(type="engine_unavailable", message="no route", fault="infrastructure")
SCORED = [Reward(name="score", value=1.0)]

numbers = itertools.count()


def call(agent: str | None = "solver", *, tokens: int | None = 3, **fields: Any) -> Span:
    """A call that the policy answered with ``tokens``; None: one that went to the agent's own endpoint."""
    index = next(numbers)
    said: dict[str, Any] = {"response": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}
    attributes: dict[str, Any] = {semconv.SERVER_ADDRESS: "api.openai.com", semconv.SERVER_PORT: 443}
    if tokens is None:
        said |= {"usage": Usage(output_tokens=5)}
        attributes[semconv.REQUEST_MODEL] = "gpt-4o-mini"
    else:
        ids = np.arange(tokens, dtype=np.int32)
        said |= {"policy": "policy", "provenance": "exact", "prompt_ids": ids, "response_ids": ids}
    said |= fields.pop("said", {})
    times = {"started_at": 100.0 + index, "ended_at": 100.5 + index}
    return Span(
        rollout_id="r",
        index=index,
        kind="llm",
        name="chat",
        agent=agent,
        generation=Generation(**said),
        **{"attributes": attributes, **times, **fields},
    )


def failed(failure: Failure, **fields: Any) -> Span:
    """A call of the policy that was not answered."""
    return call(failure=failure, said={"response": None, "provenance": "text", "response_ids": None}, **fields)


def look(
    *spans: Span,
    resources: Sequence[AnyResource] = (POLICY,),
    train: Sequence[str] = ("*",),
    failure: Failure | None = None,
    rewards: Sequence[Reward] = SCORED,
    **seen: Any,
) -> CheckReport:
    """The report of a rollout with these spans."""
    rollout = Rollout(
        id="r",
        run_id="run",
        group_id="g",
        task_id="t",
        purpose="check",
        status="failed" if failure is not None and failure.type != "reward_error" else "succeeded",
        failure=failure,
        rewards=list(rewards),
        started_at=100.0,
        ended_at=200.0,
    )
    resources = [
        Policy(name=it.name, model=it.model, base_url=it.base_url, agents=tuple(train)) if it is POLICY else it
        for it in resources
    ]
    return inspect_rollout(Task(id="t", input=1), rollout, spans, resources=resources, train=train, **seen)


# What it tells.


def test_it_tells_who_acted_and_where_each_call_went() -> None:
    graph = Span(rollout_id="r", index=0, kind="agent", name="homework", agent="homework")
    report = look(graph, call(), call(tokens=4), call("teacher", tokens=None), train=["solver"])
    assert [(agent.name, agent.trained) for agent in report.agents] == [
        ("homework", False),
        ("solver", True),
        ("teacher", False),
    ]
    assert [(route.to, route.calls, route.tokens, route.exact) for route in report.agents[1].routes] == [
        ("policy", 2, 7, 7)
    ]
    (own,) = report.agents[2].routes
    assert (own.to, own.model, own.calls, own.tokens, own.exact) == ("api.openai.com", "gpt-4o-mini", 1, 5, 0)
    assert report.ok


@pytest.mark.parametrize(
    ("name", "arguments", "malformed"),
    [
        ("calculator", '{"expression": "3 + 4"}', 0),
        ("calculator", '{"expression": ', 1),
        ("calculator", "[3, 4]", 1),
        ("calcluator", '{"expression": "3 + 4"}', 1),
    ],
)
def test_it_tells_which_tools_were_offered_and_called_and_how_well(name: str, arguments: str, malformed: int) -> None:
    asked = {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}
    report = look(call(said={"tools": [TOOL], "response": asked}), call(said={"tools": [TOOL]}))
    assert report.tools[0].offered_to == ["solver"]
    assert (sum(tool.calls for tool in report.tools), sum(tool.malformed for tool in report.tools)) == (1, malformed)


def test_a_call_that_nobody_could_read_is_counted() -> None:
    broken = {"role": "assistant", "content": '<tool_call>{"name": "calculator", '}
    assert look(call(said={"tools": [TOOL], "response": broken})).malformed == 1
    assert look(call(said={"response": broken})).malformed == 0, "no tools were offered"


def test_it_tells_how_many_answers_were_cut_off() -> None:
    report = look(call(said={"finish_reason": "length"}), call())
    assert (report.answers, report.cut_off) == (2, 1)
    assert "1 of 2 answers were cut off" in report.warnings[0]
    assert report.ok


def test_it_tells_how_long_each_part_took_and_calls_at_once_count_once() -> None:
    spans = [
        call(started_at=101.0, ended_at=103.0),
        call(started_at=102.0, ended_at=104.0),
        Span(rollout_id="r", index=next(numbers), kind="agent", name="solver", started_at=100.0, ended_at=190.0),
    ]
    assert look(*spans, start_seconds=7.0).seconds == {"start": 7.0, "agent": 90.0, "model": 3.0, "reward": 10.0}


def test_it_is_read_on_a_terminal_of_80_columns() -> None:
    warned = [f"a warning that was logged, and is {'very ' * 30}long"]
    report = look(call(said={"tools": [TOOL]}), call("teacher", tokens=None), train=["solver"], logged=warned)
    text = render(report)
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "solver (trained): 1 call to policy, 3 tokens",
        "teacher (not trained): 1 call to api.openai.com (gpt-4o-mini), 5 tokens",
        "3 of 8 are the policy's own",
        "calculator: offered to solver, called 0 times",
        "2, 0 of them cut off",
        "score 1",
        "warning a warning that was logged",
    ):
        assert part in " ".join(text.split())


# What makes a run pointless.

UNCHANGED = {"response": {"role": "assistant", "content": "4"}, "provenance": "text", "response_ids": None}
POINTLESS: dict[str, tuple[dict[str, Any], str]] = {
    "no call at all": ({"spans": []}, "no call reached the policy: the agent made no model call"),
    "calls outside of the rollout": (
        {"spans": [], "outside": ["gpt-4o at api.openai.com, made in agent.py:33"]},
        "model calls were made outside of the rollout: gpt-4o at api.openai.com, made in agent.py:33",
    ),
    "calls outside of the rollout beside one in it": (
        {"spans": [call()], "outside": ["gpt-4o at api.openai.com, made in agent.py:33"]},
        "model calls were made outside of the rollout",
    ),
    "calls of a trained agent elsewhere": (
        {"spans": [call(tokens=None)]},
        "no call reached the policy: they went to api.openai.com",
    ),
    "train matches nobody": (
        {"spans": [call("triage", tokens=None)], "train": ["triaje"]},
        "no agent matches triaje; seen: triage; did you mean 'triage'?",
    ),
    "train matches nobody, and the agent fails": (
        {"spans": [call("triage", tokens=None)], "train": ["triaje"], "failure": DOWN, "rewards": []},
        "no agent matches triaje; seen: triage",
    ),
    "the agent raises": ({"spans": [], "failure": BOOM}, "the agent failed: ValueError: boom (agent.py:12)"),
    "the agent ends the process": (
        {"spans": [], "failure": Failure(type="cancelled", message="3", exception="builtins.SystemExit")},
        "the agent failed: cancelled: SystemExit: 3; an agent returns its output",
    ),
    "time-out": (
        {
            "spans": [],
            "failure": Failure(type="timeout", message="the agent took longer than runner.timeout = 5 s"),
            "running": ["agent.py:9: time.sleep(600)"],
        },
        "the agent failed: timeout: the agent took longer than runner.timeout = 5 s; it is at agent.py:9: time.sleep",
    ),
    "the endpoint of another agent is down": (
        {"spans": [call(), call("teacher", tokens=None)], "failure": DOWN, "rewards": []},
        "the agent failed: engine_unavailable: no route",
    ),
    "the prompt is too long": (
        {
            "spans": [failed(Failure(type="context_too_long", message="80 tokens, and the context holds 10"))],
            "failure": Failure(type="context_too_long", message="80 tokens, and the context holds 10"),
        },
        "the agent failed: context_too_long: 80 tokens, and the context holds 10; shorten the prompt",
    ),
    "the agent keeps to itself that its calls fail": (
        {"spans": [failed(Failure(type="bad_request", message="images are not understood"))]},
        "no call reached the policy: 1 × bad_request: images are not understood",
    ),
    "answers without tokens": (
        {"spans": [call(said=UNCHANGED)]},
        "the policy answered without token ids and log-probabilities",
    ),
    "the reward raises": (
        {
            "spans": [call()],
            "failure": Failure(type="reward_error", message="reward 'score' raised KeyError: 'x'", where="reward.py:4"),
            "rewards": [Reward(name="score", value=None)],
        },
        "reward 'score' raised KeyError: 'x' (reward.py:4)",
    ),
    "the reward cannot score": (
        {"spans": [call()], "rewards": [Reward(name="score", value=None, reason="no expected value")]},
        "the reward 'score' cannot score it: no expected value",
    ),
    "no reward": ({"spans": [call()], "rewards": []}, "the rollout was given no reward"),
}


@pytest.mark.parametrize(("seen", "message"), POINTLESS.values(), ids=POINTLESS.keys())
def test_what_makes_a_run_pointless_is_named(seen: dict[str, Any], message: str) -> None:
    seen = dict(seen)
    report = look(*seen.pop("spans"), **seen)
    assert any(error.startswith(message) for error in report.errors), report.errors
    assert not report.ok
    assert "error" in render(report)


def test_an_agent_that_fails_on_what_the_policy_said_is_learned_from() -> None:
    report = look(call(), failure=BOOM, rewards=[Reward(name="score", value=0.0)])
    assert report.errors == []
    assert "the agent failed after the policy had answered: ValueError: boom (agent.py:12)" in report.warnings[0]
    assert not report.ok, "a person should look at it all the same"


@pytest.mark.parametrize(
    ("exception", "finish_reason", "ok"),
    [
        ("agents.exceptions.ModelBehaviorError", "length", True),
        ("agents.exceptions.ModelBehaviorError", "stop", False),
        ("builtins.KeyError", "length", False),
    ],
)
def test_an_agent_whose_framework_refuses_what_was_cut_off_has_nothing_to_mend(
    exception: str, finish_reason: str, ok: bool
) -> None:
    failure = Failure(type="agent_error", message="incomplete", exception=exception)
    assert look(call(said={"finish_reason": finish_reason}), failure=failure).ok is ok


def test_step_rewards_alone_are_learned_from_and_a_warning_says_what_has_no_outcome() -> None:
    report = look(call(), rewards=[Reward(name="hint", value=0.5, step=True)])
    assert report.errors == []
    assert "evaluations have no outcome" in report.warnings[0]


def test_a_model_that_cannot_be_reached_does_not_end_a_comparison_of_several() -> None:
    choice = ModelChoice(name="model", model="large")
    report = look(failed(DOWN), resources=[choice], failure=DOWN, rewards=[])
    assert report.errors == []
    assert "engine_unavailable: no route" in report.warnings[0]


def test_what_another_task_may_tell_is_not_concluded_from_one() -> None:
    """The trained agent may have nothing to do in this one; a pattern that is nearly a name is a slip of the pen."""
    assert not look(call("billing", tokens=None), train=["refunds"]).conclusive
    assert look(call("triage", tokens=None), train=["triaje"]).conclusive
    assert not look(call(), rewards=[Reward(name="score", value=None)]).conclusive
    assert look(call()).conclusive


def test_a_pattern_that_matches_nobody_beside_one_that_does_is_a_warning() -> None:
    report = look(call("solver"), train=["solver", "teecher"])
    assert report.errors == []
    assert "no agent matched teecher in this rollout; seen: solver" in report.warnings


def test_without_a_policy_or_a_model_to_choose_only_agent_and_reward_are_judged() -> None:
    assert look(resources=[]).ok
    assert look(resources=[], failure=BOOM).errors == ["the agent failed: ValueError: boom (agent.py:12)"]
