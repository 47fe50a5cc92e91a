"""Retrievals that found nothing, or that the final answer takes nothing from."""

from __future__ import annotations

from typing import Any

import pytest
from intermediate.spans import Recording, call

DOCUMENT = {"page_content": "The tower was finished in 1889, and stands in Paris.", "metadata": {"source": "a.txt"}}


def retrieved(documents: Any, answer: str = "I do not know.") -> Recording:
    run = Recording()
    run.answer("", call("look_up", id="c1"))
    tool = run.tool("look_up", id="c1")
    run.retrieval(documents, parent_id=tool.id)
    run.answer(answer)
    return run


@pytest.mark.parametrize("documents", [[], None, [""], [{"text": " "}], "[]", '{"results": []}', [[]]])
def test_a_retrieval_that_found_nothing(documents: Any) -> None:
    (found,) = retrieved(documents).found("retrieval_empty")

    assert (found.answer.index, found.reason) == (0, "retriever found nothing for apples")


@pytest.mark.parametrize("documents", [[DOCUMENT], "words", [0], {"count": 0}])
def test_a_retrieval_that_found_something(documents: Any) -> None:
    assert retrieved(documents).found("retrieval_empty") == []


def test_a_retrieval_that_failed_or_does_not_say_what_it_found_says_nothing() -> None:
    run = Recording()
    run.answer("", call("search_web"), call("search_web"))
    run.tool("search_web", fails="no", result="")
    run.tool("search_web")
    run.add("retrieval", "memory")

    assert run.found("retrieval_empty") == []


def test_tools_that_retrieve_are_known_by_their_names() -> None:
    run = Recording()
    run.answer("", call("Search_Web", id="c1"), call("find", id="c2"))
    run.tool("Search_Web", id="c1", result="[]")
    run.tool("find", id="c2", result=[])

    assert [one.reason for one in run.found("retrieval_empty")] == ["Search_Web found nothing"]
    assert [one.reason for one in run.found("retrieval_empty", retrieval_tools=["find"])] == ["find found nothing"]


def test_a_tool_with_a_retrieval_inside_is_one_retrieval() -> None:
    run = Recording()
    run.answer("", call("search", id="c1"))
    tool = run.tool("search", id="c1", result="")
    run.retrieval([], parent_id=tool.id)

    assert len(run.found("retrieval_empty")) == 1


def test_a_retrieval_before_the_first_answer_is_nobodys_doing() -> None:
    run = Recording()
    run.retrieval([])
    run.answer("I do not know.")

    assert run.found("retrieval_empty") == []


def test_an_answer_with_five_words_of_a_document_in_a_row_uses_it() -> None:
    run = retrieved([DOCUMENT], "As far as I know THE tower, was finished -- in 1889.")

    assert run.blamed("retrieval_unused") == []


def test_an_answer_with_fewer_words_in_a_row_takes_nothing() -> None:
    run = retrieved([DOCUMENT], "I believe that the tower was finished long ago.")

    (found,) = run.found("retrieval_unused")
    assert (found.answer.index, found.reason) == (0, "the final answer takes nothing from what retriever found")


@pytest.mark.parametrize(("answer", "count"), [("Paris", 0), ("in Paris.", 0), ("London", 1), ("Yes.", 0), ("", 0)])
def test_a_short_answer_must_stand_in_the_document_whole(answer: str, count: int) -> None:
    assert len(retrieved([DOCUMENT], answer).found("retrieval_unused")) == count


def test_the_rollouts_output_is_the_final_answer_where_it_is_a_text() -> None:
    run = retrieved([DOCUMENT], "London")

    assert (len(run.found("retrieval_unused", "Paris")), len(run.found("retrieval_unused", {"a": 1}))) == (0, 1)


def test_metadata_is_not_what_a_document_says() -> None:
    assert len(retrieved([DOCUMENT], "a.txt").found("retrieval_unused")) == 1


def test_words_of_two_documents_are_not_in_a_row() -> None:
    run = retrieved([{"text": "one two three"}, {"text": "four five six"}], "one two three four five six")

    assert len(run.found("retrieval_unused")) == 1


def test_it_is_known_only_when_the_rollout_is_over() -> None:
    run = retrieved([DOCUMENT], "London")
    run.answer("London!")

    (found,) = run.found("retrieval_unused")
    assert not any(found.is_before(span) for span in run.spans)
