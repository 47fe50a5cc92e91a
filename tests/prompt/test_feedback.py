"""What a model that reflects is told of a rollout."""

from __future__ import annotations

from typing import Any

from agentlightning import Task, semconv
from agentlightning.records import Failure, Generation, Reward, Rollout, Span
from agentlightning_prompt.feedback import MAX_CHARACTERS, feedback, made_by
from agentlightning_prompt.roles import Role
from agentlightning_prompt.trials import Trial

SOLVER = Role(name="solver", agent="solver", text="Solve.", replaces="Solve.")
SYSTEM = {"role": "system", "content": "Solve."}
ASKED = {"role": "user", "content": "2 + 3?"}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOOL = {"role": "tool", "tool_call_id": "c", "content": "error: b is missing"}


def call(index: int, *messages: dict[str, Any], agent: str = "solver", **fields: Any) -> Span:
    generation = Generation(messages=list(messages), **fields)
    return Span(rollout_id="r", kind="llm", name="chat", agent=agent, index=index, generation=generation)


def trial(value: float | None = 0.0, **fields: Any) -> Trial:
    rollout = Rollout(id="r", run_id="r", group_id="g", task_id="t", purpose="train", status="succeeded", **fields)
    return Trial(task=Task(id="t", input="2 + 3?", expected="5"), rollout=rollout, score=value)


def told(spans: list[Span], of: Trial | None = None, *, show_expected: bool = True) -> dict[str, Any]:
    return feedback(of or trial(), spans, SOLVER, "Solve.", show_expected=show_expected)


def test_a_conversation_is_told_once_with_its_tools_and_without_the_prompt() -> None:
    spans = [
        call(0, SYSTEM, ASKED, response=CALLED),
        call(2, SYSTEM, ASKED, CALLED, TOOL, response={"role": "assistant", "content": "I cannot."}),
    ]
    assert told(spans)["Generated Outputs"]["conversation"] == (
        'user: 2 + 3?\nassistant: [calls add({"a": 2})]\ntool: error: b is missing\nassistant: I cannot.'
    )


def test_calls_of_other_agents_and_of_other_prompts_are_left_out() -> None:
    spans = [
        call(0, SYSTEM, ASKED, response={"role": "assistant", "content": "mine"}),
        call(1, SYSTEM, ASKED, agent="planner", response={"role": "assistant", "content": "not mine"}),
        call(2, {"role": "system", "content": "Else."}, ASKED, response={"role": "assistant", "content": "nor this"}),
    ]
    assert [made_by(span, SOLVER, "Solve.") for span in spans] == [True, False, False]
    assert "mine" in told(spans)["Generated Outputs"]["conversation"]
    assert "nor this" not in str(told(spans))


def test_what_failed_is_told_by_type_and_place() -> None:
    tool = Span(rollout_id="r", kind="tool", name="add", index=1)
    tool.failure = Failure(type="tool_error", message="b is missing", exception="builtins.TypeError")
    of = trial(failure=Failure(type="agent_error", message="no answer", exception="ValueError", where="agent.py:7"))
    found = told([call(0, SYSTEM, ASKED, response=CALLED), tool], of)["Feedback"]
    assert "The agent failed: ValueError: no answer (agent.py:7)" in found
    assert "The tool add failed: tool_error: TypeError: b is missing" in found


def test_rewards_are_told_by_component_with_their_reasons() -> None:
    rewards = [
        Reward(name="exact", value=0.0, reason="expected 5, got 6"),
        Reward(name="style", value=0.5, weight=0.1),
        Reward(name="judge", value=None, reason="the judge did not answer"),
    ]
    found = told([], trial(None, rewards=rewards))["Feedback"].splitlines()
    assert found[:4] == [
        "This could not be scored.",
        "reward exact: 0: expected 5, got 6",
        "reward style: 0.5 (weight 0.1)",
        "reward judge: no value: the judge did not answer",
    ]


def test_the_expected_answer_is_told_where_that_is_wanted() -> None:
    assert "The expected answer: 5" in told([])["Feedback"]
    assert "expected" not in told([], show_expected=False)["Feedback"]


def test_what_a_tool_gave_after_the_last_call_is_told() -> None:
    tool = Span(rollout_id="r", kind="tool", name="add", index=1, attributes={semconv.TOOL_CALL_RESULT: "5"})
    found = told([call(0, SYSTEM, ASKED, response=CALLED), tool])["Generated Outputs"]
    assert found["tools after it"] == "add() gave 5"


def test_a_text_that_is_too_long_is_cut_in_its_middle() -> None:
    spans = [call(0, SYSTEM, {"role": "user", "content": "a" * MAX_CHARACTERS + "b"}, response=CALLED)]
    line = told(spans)["Generated Outputs"]["conversation"].splitlines()[0]
    assert line.endswith("ab")
    assert " … 1 characters … " in line


def test_an_answer_that_was_cut_off_is_told() -> None:
    spans = [call(0, SYSTEM, ASKED, response={"role": "assistant", "content": "I"}, finish_reason="length")]
    assert "An answer was cut off at the limit of tokens." in told(spans)["Feedback"]
