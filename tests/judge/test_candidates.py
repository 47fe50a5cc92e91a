"""What a judge is shown of a rollout."""

from __future__ import annotations

from typing import Any

from judge.scripted import TASK, Seen, by_worth, judge, make, rollouts
from stub_server import StubServer

from agentlightning import semconv
from agentlightning.records import Failure, Generation, Span
from agentlightning_judge.candidates import show_rollout

SYSTEM = {"role": "system", "content": "Use the calculator."}
QUESTION = {"role": "user", "content": "Two and two?"}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "c"}
ANSWER = {"role": "assistant", "content": "It is 4."}


def span(kind: Any, index: int, **fields: Any) -> Span:
    return Span(rollout_id="r0", kind=kind, name=f"{kind} name", index=index, agent="solver", **fields)


def said(index: int, *messages: Any) -> Span:
    return span("llm", index, generation=Generation(messages=list(messages[:-1]), response=messages[-1]))


def tool(index: int, **fields: Any) -> Span:
    attributes = {semconv.TOOL_NAME: "add", semconv.TOOL_CALL_ARGUMENTS: {"a": 2}, semconv.TOOL_CALL_RESULT: 4}
    return span("tool", index, attributes=attributes, **fields)


def shown(spans: list[Span], output: Any = "It is 4.", limit: int = 8000, **fields: Any) -> str:
    (rollout,) = rollouts(output, **fields)
    return show_rollout(rollout, spans, what="transcript", max_characters=limit).text


def test_a_transcript_has_messages_calls_and_tools_each_once_and_in_their_order() -> None:
    spans = [said(0, SYSTEM, QUESTION, ASKED), tool(1), said(2, SYSTEM, QUESTION, ASKED, RESULT, ANSWER)]
    assert shown(spans).split("\n\n") == [
        "user: Two and two?",
        'solver: calls add({"a": 2})',
        'tool add({"a": 2}) gave: 4',
        "solver: It is 4.",
        "Final answer:\nIt is 4.",
    ]


def test_where_no_tool_was_recorded_its_result_is_in_the_messages() -> None:
    spans = [said(0, QUESTION, ASKED), said(1, QUESTION, ASKED, RESULT, ANSWER)]
    assert "tool: 4" in shown(spans).split("\n\n")


def test_a_tool_that_failed_says_why() -> None:
    failed = tool(0, failure=Failure(type="tool_error", message="no such number"))
    assert 'tool add({"a": 2}) failed: no such number' in shown([failed])


def test_a_hand_off_and_a_retrieval_are_shown() -> None:
    handed = span("handoff", 0, attributes={semconv.AGENT_NAME: "writer"})
    found = span("retrieval", 1, attributes={semconv.RETRIEVAL_QUERY: "sums", semconv.RETRIEVAL_DOCUMENTS: ["a", "b"]})
    text = shown([handed, found])
    assert "solver hands over to writer" in text
    assert 'retrieval retrieval name(sums) gave: ["a", "b"]' in text


def test_a_run_that_failed_by_the_agents_fault_is_shown_as_one() -> None:
    (rollout,) = rollouts(None, failure=Failure(type="agent_error", message="division by zero"))
    text = show_rollout(rollout, [], what="output", max_characters=8000).text
    assert text == "The run failed: agent_error: division by zero\n\nFinal answer:\n(nothing)"


def test_the_answer_is_read_out_of_what_a_framework_returns() -> None:
    (rollout,) = rollouts({"messages": [QUESTION, ANSWER]})
    assert show_rollout(rollout, [], what="output", max_characters=8000).text == "It is 4."


async def test_what_is_too_long_is_cut_in_the_middle_and_that_is_said(stub: StubServer) -> None:
    stub.reply(by_worth())
    long = "begin" + "x" * 1000 + "end"
    rewards = await judge(make(stub.base_url, max_characters=100), rollouts(long, "4"))
    (text,) = [one for one in Seen(stub.requests[0]).candidates.values() if one != "4"]
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "\n[… 908 characters left out here …]\n" in text
    assert (rewards[0].reason or "").startswith("(the judge was not shown 908 characters of it) rank 1 of 2.")
    assert (rewards[1].reason or "").startswith("rank 2 of 2.")


async def test_the_task_is_shown_and_what_is_expected_only_if_told_to(stub: StubServer) -> None:
    stub.reply(by_worth())
    for options in ({}, {"show_expected": True}):
        await judge(make(stub.base_url, **options), rollouts("5", "six"), TASK)
    first, second = (Seen(request) for request in stub.requests)
    assert f"<task-{first.token}>\nWhat is two and two?\n</task-{first.token}>" in first.text
    assert "expected" not in first.text
    assert f"<expected-{second.token}>\n4\n</expected-{second.token}>" in second.text
