"""Tools that failed, calls that nobody could read, calls that were made before: and whose doing it was."""

from __future__ import annotations

from typing import Any

import pytest
from intermediate.spans import Recording, call

from agentlightning.records import Failure


def test_a_tool_that_failed_is_the_doing_of_the_answer_that_called_it() -> None:
    run = Recording()
    run.answer("", call("calculator", {"a": 1}, "c1"))
    run.tool("calculator", id="c1", fails="division by\nzero")
    run.answer("sorry")

    (found,) = run.found("tool_error")
    assert (found.answer, found.known_at) == (run.spans[0], 1.5)
    assert found.reason == "calculator failed: division by zero"


def test_the_id_of_the_call_decides_though_other_answers_came_since() -> None:
    run = Recording()
    run.answer("", call("slow", id="c1"))
    run.answer("", call("slow", {"a": 1}, id="c2"))
    run.tool("slow", id="c1", fails="no")

    assert run.blamed("tool_error") == [0]


def test_of_answers_with_the_same_id_the_last_one_counts() -> None:
    run = Recording()
    for _ in range(2):
        run.answer("", call("calculator", {"n": len(run.spans)}, "call_0"))
        run.tool("calculator", id="call_0", fails="no")

    assert run.blamed("tool_error") == [0, 2]


def test_parallel_calls_of_one_answer_count_each() -> None:
    run = Recording()
    run.answer("", call("a", id="c1"), call("b", id="c2"), call("c", id="c3"))
    for name, id, fails in (("a", "c1", "no"), ("b", "c2", None), ("c", "c3", "no")):
        run.tool(name, id=id, fails=fails, started_at=1.0, ended_at=2.0)

    assert run.blamed("tool_error") == [0, 0]


def test_a_tool_without_an_id_is_the_last_answers_that_called_it_else_the_last_ones_of_its_agent() -> None:
    run = Recording()
    run.answer("", call("search", id="c1"), agent="worker")
    run.answer("I will wait.", agent="boss")
    run.tool("search", fails="no", agent="boss")
    run.tool("unheard_of", fails="no", agent="worker")
    run.tool("unheard_of", fails="no", agent="nobody")

    assert run.blamed("tool_error") == [0, 0, 1]


def test_a_tool_before_the_first_answer_is_nobodys_doing() -> None:
    run = Recording()
    run.tool("setup", fails="no")
    run.answer("done")

    assert run.blamed("tool_error") == []


@pytest.mark.parametrize(
    "failure",
    [
        Failure(type="cancelled", message="still open when its rollout ended"),
        Failure(type="timeout", message="the database is away", fault="infrastructure"),
    ],
)
def test_a_tool_that_was_cut_off_or_that_the_infrastructure_broke_says_nothing(failure: Failure) -> None:
    run = Recording()
    run.answer("", call("search", id="c1"))
    run.tool("search", id="c1", fails=failure)

    assert run.blamed("tool_error") == []


def test_an_answer_that_was_never_given_causes_nothing() -> None:
    run = Recording()
    run.add("llm", "chat", agent="agent")
    run.add("llm", "embeddings", agent="agent", generation=None)
    run.tool("search", fails="no")

    assert run.blamed("tool_error") == []


def test_a_streamed_answer_whose_tool_began_before_its_end_still_caused_it() -> None:
    run = Recording()
    run.answer("", call("search", id="c1"), started_at=0.0, ended_at=5.0)
    run.tool("search", id="c1", fails="no", started_at=1.0, ended_at=2.0)
    run.tool("search", fails="no", started_at=1.0, ended_at=2.0)

    assert run.blamed("tool_error") == [0, 0]


# Malformed calls.


@pytest.mark.parametrize("arguments", ['{"a": 1', "[1]", "7", "a = 1"])
def test_arguments_that_are_no_json_object_are_malformed(arguments: str) -> None:
    run = Recording()
    run.answer("", call("calculator", arguments), call("calculator", {"a": 1}))

    assert run.blamed("tool_malformed") == [0]


@pytest.mark.parametrize("arguments", ['{"a": 1}', "", "{}"])
def test_arguments_that_are_an_object_or_nothing_are_well_formed(arguments: str) -> None:
    run = Recording()
    run.answer("", call("calculator", arguments))

    assert run.blamed("tool_malformed") == []


@pytest.mark.parametrize("content", ['<tool_call>{"name": "search"', [{"type": "text", "text": "<tool_call>{}"}]])
def test_a_call_in_the_text_that_nobody_could_read_is_malformed(content: Any) -> None:
    run = Recording()
    run.answer(content)

    (found,) = run.found("tool_malformed")
    assert found.reason.startswith("a tool call that nobody could read: <tool_call>")


def test_a_call_in_the_text_that_made_a_tool_run_was_read() -> None:
    run = Recording()
    run.answer('<tool_call>{"name": "search", "arguments": {}}</tool_call>')
    run.tool("search", result="found")

    assert run.blamed("tool_malformed") == []


def test_a_call_that_was_only_thought_of_is_none() -> None:
    run = Recording()
    run.answer("<think>shall I <tool_call>?</think>No.")

    assert run.blamed("tool_malformed") == []


# Repeated calls.


def test_the_same_arguments_in_another_order_are_a_repetition() -> None:
    run = Recording()
    run.answer("", call("search", '{"q": "x", "k": 1}'))
    run.answer("", call("search", '{"k":1,"q":"x"}'))

    (found,) = run.found("tool_repeated")
    assert (found.answer.index, found.reason) == (1, 'search was called again with {"k": 1, "q": "x"}')


def test_other_arguments_another_tool_or_another_agent_are_no_repetition() -> None:
    run = Recording()
    run.answer("", call("search", {"q": "x"}))
    run.answer("", call("search", {"q": "y"}))
    run.answer("", call("look_up", {"q": "x"}))
    run.answer("", call("search", {"q": "x"}), agent="other")

    assert run.blamed("tool_repeated") == []


def test_the_same_call_twice_in_one_answer_is_a_repetition() -> None:
    run = Recording()
    run.answer("", call("search", {"q": "x"}, "c1"), call("search", {"q": "x"}, "c2"))

    assert run.blamed("tool_repeated") == [0]


def test_calls_written_as_text_are_known_by_the_tools_that_ran() -> None:
    run = Recording()
    for _ in range(2):
        run.answer("Action: search\nAction Input: x")
        run.tool("search", arguments={"q": "x"}, result="nothing new")

    assert run.blamed("tool_repeated") == [2]


def test_a_custom_tool_that_takes_any_text_is_read_too() -> None:
    run = Recording()
    custom = {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    run.answer("", custom)
    run.answer("", custom)

    assert (run.blamed("tool_repeated"), run.blamed("tool_malformed")) == ([1], [])


def test_the_order_in_which_spans_are_read_does_not_matter() -> None:
    run = Recording()
    run.answer("", call("search", {"q": "x"}, "c1"))
    run.tool("search", id="c1", fails="no")
    run.answer("", call("search", {"q": "x"}, "c2"))
    run.tool("search", id="c2", fails="no")
    forwards = {name: run.found(name) for name in ("tool_error", "tool_repeated")}
    run.spans.reverse()

    assert {name: run.found(name) for name in forwards} == forwards
