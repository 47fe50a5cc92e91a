"""Answers cut off or in the wrong format, prompts that are too long, hand-offs in a circle."""

from __future__ import annotations

from itertools import pairwise

import pytest
from intermediate.spans import Recording, call

from agentlightning.records import Failure

TOO_LONG = Failure(type="context_too_long", message="maximum context length is 4096 tokens")


@pytest.mark.parametrize(("reason", "count"), [("length", 1), ("max_tokens", 1), ("stop", 0), (None, 0)])
def test_an_answer_that_is_not_at_its_end_was_cut_off(reason: str | None, count: int) -> None:
    run = Recording()
    run.answer("The answer is", finish_reason=reason)

    assert len(run.found("answer_cut_off")) == count


@pytest.mark.parametrize("content", ["", "The answer is 4.", '{"a": 1', "```json\n{]\n```", None])
def test_an_answer_that_should_be_json_and_is_none(content: str | None) -> None:
    run = Recording()
    run.answer(content, attributes={"gen_ai.output.type": "json"})

    assert run.blamed("answer_not_json") == [0]


@pytest.mark.parametrize("content", ['{"a": 1}', "[]", '```json\n{"a": 1}\n```', '<think>hm</think>\n{"a": 1}'])
def test_json_alone_or_in_a_code_block_is_json(content: str) -> None:
    run = Recording()
    run.answer(content, attributes={"gen_ai.output.type": "json"})

    assert run.blamed("answer_not_json") == []


def test_only_answers_that_should_be_json_are_looked_at() -> None:
    run = Recording()
    run.answer("words")
    run.answer("words", agent="Writer")
    run.answer("", call("search"), agent="writer")
    run.answer('{"cut', agent="writer", finish_reason="length")

    assert run.blamed("answer_not_json") == []
    assert run.blamed("answer_not_json", json_agents=["writ*"]) == [1]


def test_a_prompt_that_is_too_long_is_the_doing_of_its_agents_last_answer() -> None:
    run = Recording()
    run.answer("", call("read"), agent="reader")
    run.answer("hello", agent="other")
    run.add("llm", "chat", agent="reader", failure=TOO_LONG)

    (found,) = run.found("context_overflow")
    assert (found.answer.index, found.known_at) == (0, 2.5)


def test_a_first_prompt_that_is_too_long_is_nobodys_doing() -> None:
    run = Recording()
    run.add("llm", "chat", agent="reader", failure=TOO_LONG)

    assert run.blamed("context_overflow") == []


def test_a_call_that_failed_otherwise_overflowed_nothing() -> None:
    run = Recording()
    run.answer("hello")
    run.add("llm", "chat", agent="agent", failure=Failure(type="bad_request", message="no such field"))

    assert run.blamed("context_overflow") == []


def handed(run: Recording, *path: str) -> None:
    for source, target in pairwise(path):
        run.answer("", call(f"transfer_to_{target}"), agent=source)
        run.handoff(source, target)


def test_a_hand_off_back_to_who_handed_on_is_a_circle() -> None:
    run = Recording()
    handed(run, "triage", "sales", "triage")

    (found,) = run.found("handoff_circle")
    assert (found.answer.index, found.reason) == (2, "handed on in a circle: triage → sales → triage")


def test_a_circle_of_three_and_what_follows_in_it() -> None:
    run = Recording()
    handed(run, "a", "b", "c", "a", "b")

    assert [one.reason[-9:] for one in run.found("handoff_circle")] == ["b → c → a", "c → a → b"]


def test_a_chain_of_hand_offs_is_no_circle() -> None:
    run = Recording()
    handed(run, "a", "b", "c", "d")

    assert run.found("handoff_circle") == []


def test_who_comes_back_with_something_done_went_in_no_circle() -> None:
    run = Recording()
    handed(run, "triage", "sales")
    run.tool("order", result="ok", agent="sales")
    handed(run, "sales", "triage")

    assert run.found("handoff_circle") == []


def test_a_tool_that_failed_is_nothing_done() -> None:
    run = Recording()
    handed(run, "triage", "sales")
    run.tool("order", fails="no", agent="sales")
    handed(run, "sales", "triage")

    assert len(run.found("handoff_circle")) == 1
